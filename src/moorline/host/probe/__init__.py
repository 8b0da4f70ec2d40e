"""Looks at shares that may hang, by children that can be killed."""
