"""The verbs beyond attach and detach: each is one thing that a caller asks for."""
