"""The page: shows a host in a browser, and changes nothing (docs/page.md)."""
