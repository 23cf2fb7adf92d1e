"""What the classes of a slide's annotations mean, by the names that QuPath and Camelyon's files give them."""

TUMOUR_CLASSES = ("tumor", "tumour", "metastases", "_0", "_1")
NORMAL_CLASSES = ("normal", "exclusion", "_2")
"""Islands without tumour within tumour, or normal tissue."""
IGNORED_CLASSES = ("ignore", "ignore*")
"""Of which nothing is known, or which hold no tissue."""
