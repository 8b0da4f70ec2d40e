"""Whether an image may be given to a guest, read from its bytes."""
