"""pcam: from histopathology patches to a published, trusted cancer detector."""

__version__ = "0.1.0"
