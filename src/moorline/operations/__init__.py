"""The verbs: one module for each thing, or group of things, that a caller can ask for."""
