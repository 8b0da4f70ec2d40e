"""What is fast, side by side with the raw calls in the same run: ``make bench``."""
