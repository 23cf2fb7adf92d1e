"""How the project is run: locally, in containers, on a schedule."""
