"""Nova's volumes, connected by Moorline's agent. Nova keeps writing the guests."""
