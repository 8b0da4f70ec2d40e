"""One attachment, one pass: observe, plan, act, and what that needs."""
