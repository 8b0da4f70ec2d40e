"""GlusterFS, with the distribution's own servers and client: nothing stands in for it."""
