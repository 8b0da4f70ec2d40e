"""For people who look after a host: what is wrong, why, and what can be done about it."""
