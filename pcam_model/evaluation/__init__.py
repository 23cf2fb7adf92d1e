"""What a network is worth: figures, pictures, report."""
