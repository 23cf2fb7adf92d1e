"""The command line `pcam`."""
