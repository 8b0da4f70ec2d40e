"""Speaking with a vCenter: session, transport, tasks, properties."""
