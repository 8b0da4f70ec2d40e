"""The contract suites: subclass one, give it its fixture, and pytest runs it."""
