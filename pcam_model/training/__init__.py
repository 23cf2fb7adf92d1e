"""How a network learns: search, one cycle, checkpoints."""
