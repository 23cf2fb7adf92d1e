"""What a file is by its name: an image, litter of a desktop, of which split and which class."""

import re
from functools import lru_cache
from pathlib import PurePosixPath

from pcam_model.core.splits import SplitName

# Formats that are not read are named here too, so that such files are listed as unreadable and never left out.
IMAGE_SUFFIXES = frozenset(
    {"tif", "tiff", "png", "jpg", "jpeg", "jpe", "jfif", "bmp", "dib", "webp"}
    | {"gif", "jp2", "j2k", "jxl", "avif", "heic", "heif", "ppm", "pgm", "tga", "psd"}
)
LABELS_FILE = "train_labels.csv"
SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r"})
SYSTEM_FOLDERS = frozenset(
    {"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"}
)

SPLIT_WORDS: dict[str, SplitName] = {
    "train": "train", "training": "train",
    "valid": "valid", "val": "valid", "validation": "valid",
    "test": "test", "testing": "test",
}  # fmt: skip
NEGATIVE_WORDS = frozenset(
    {"0", "no", "non", "not", "without", "normal", "nontumor", "nontumour", "benign", "negative", "neg", "healthy"}
    | {"noncancer", "noncancerous", "false"}
)
POSITIVE_WORDS = frozenset(
    {"1", "yes", "with", "has", "tumor", "tumour", "tumors", "tumours", "cancer", "cancerous", "malignant"}
    | {"metastasis", "metastases", "metastatic", "positive", "pos", "true"}
)
# "a_no_tumor_tissue" is a class; "tumor_001", a slide, is none.
FILLER_WORDS = frozenset({"a", "b", "is", "any", "class", "label", "tissue", "cell", "cells", "patch", "patches"})


def words(name: str) -> list[str]:
    """The words of a name in lower case, without what divides them."""
    return [word for word in re.split(r"[\s_\-.]+", name.lower()) if word]


def suffix_of(name: str) -> str:
    """The ending of a file's name in lower case, without its dot."""
    stem, _, suffix = name.rpartition("/")[2].rpartition(".")
    return suffix.lower() if stem else ""


def is_image(name: str) -> bool:
    """Whether a file is an image by its ending."""
    return suffix_of(name) in IMAGE_SUFFIXES


def is_system_file(name: str) -> bool:
    """Whether a file was left by a desktop, a notebook or a file server: hidden, or below a folder that is."""
    parts = name.lower().split("/")
    return "/." in f"/{name}" or parts[-1] in SYSTEM_FILES or not SYSTEM_FOLDERS.isdisjoint(parts)


@lru_cache(maxsize=1024)  # asked for each file's folder
def split_of(name: str) -> SplitName | None:
    """The split that the first word of a name's stem or of a folder above it names; None where none does."""
    parts = PurePosixPath(name).parts
    for part in reversed(parts):
        named = [SPLIT_WORDS[word] for word in words(part) if word in SPLIT_WORDS]
        if named:
            return named[0]
    return None


def class_of(name: str) -> int | None:
    """The class (0 or 1) that a name stands for, as `normal`, `1` or `b_has_tumor_tissue`; None for any other name."""
    own = set(words(name)) - FILLER_WORDS
    if not own or own - NEGATIVE_WORDS - POSITIVE_WORDS:
        return None
    digits = {int(word) for word in own & {"0", "1"}}
    named = {0 if own & NEGATIVE_WORDS - {"0"} else 1} if own - {"0", "1"} else set()
    return (digits | named).pop() if len(digits | named) == 1 else None
