"""The local stack: a Prefect server on SQLite and a process worker that `make train` starts, shares and stops."""
