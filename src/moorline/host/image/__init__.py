"""Reads images: what they are, what they refer to, and whether a guest may have them."""
