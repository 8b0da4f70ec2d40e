"""Making machines on a datastore that is chosen for them."""
