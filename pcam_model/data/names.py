"""What files are called that hold patches, and what lies beside them."""

from typing import NamedTuple

IMAGES = {"tif", "tiff", "png", "jpg", "jpeg"}
LITTER = {"Thumbs.db", "desktop.ini"}
LABELS = "train_labels.csv"
PACK = "pack.json"


class NamedImage(NamedTuple):
    """The id of a patch, which is its file's name without folder and kind, and the file; empty in a pack."""

    id: str
    file: str
