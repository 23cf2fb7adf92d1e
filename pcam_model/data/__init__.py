"""Where patches come from, and who is in which part."""
