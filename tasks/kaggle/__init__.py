"""Kaggle: credentials, download and submission through its own client."""
