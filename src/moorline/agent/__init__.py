"""``moorline agent``: the daemon that owns a host's state and keeps its attachments as wanted."""
