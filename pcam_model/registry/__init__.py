"""Where runs are kept and published."""
