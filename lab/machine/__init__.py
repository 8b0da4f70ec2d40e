"""Whole machines: trees of Debian, booted as containers with the distribution's own systemd."""
