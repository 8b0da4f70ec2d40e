"""Moorline attaches storage volumes to virtual machines, and keeps them attached."""
