"""Keystone and Cinder at their boundary, HTTP: see ``server``."""
