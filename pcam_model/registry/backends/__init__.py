"""Backends of the store: a folder, and S3."""
