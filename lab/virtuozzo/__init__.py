"""Virtuozzo Storage: clusters, client commands, ploop, and the story that is told of them."""
