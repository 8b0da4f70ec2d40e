"""A small data centre on one machine, to try Moorline on. Never imported by Moorline itself."""
