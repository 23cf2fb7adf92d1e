"""Shared ground: errors, files, schemas, paths, random numbers, concurrency, progress."""
