"""Object stores: a directory and S3 behind one interface."""
