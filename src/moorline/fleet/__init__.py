"""Many hosts as one: who has which guest, and how guests move."""
