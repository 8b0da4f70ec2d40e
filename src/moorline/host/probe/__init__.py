"""Looks that may hang, asked of a child that can be killed."""
