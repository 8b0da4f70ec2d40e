"""The façade over a Unix socket: HTTP and JSON, described by OpenAPI, and its client."""
