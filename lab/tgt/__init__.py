"""A real iSCSI target: the distribution's tgt."""
