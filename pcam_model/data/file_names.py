"""What a file is by its name: an image, a system file, of which split and which class."""

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
TABLE_FORMATS = frozenset({"csv", "tsv", "xlsx", "xls", "ods", "numbers"})
SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r"})
SYSTEM_FOLDERS = frozenset(
    {"__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "system volume information", "lost+found"}
    | {"#snapshot", "~snapshot", "@recently-snapshot"}
)
# Copied out of Windows, each file's mark of its origin is a file of its own: x.tif:Zone.Identifier.
SYSTEM_ENDINGS = (":zone.identifier", "\uf03azone.identifier")

SPLIT_WORDS: dict[str, SplitName] = {
    "train": "train", "training": "train",
    "valid": "valid", "val": "valid", "validation": "valid",
    "test": "test", "testing": "test",
}  # fmt: skip
NEGATIONS = frozenset({"no", "non", "not", "without", "negative", "neg", "false"})
NORMAL_WORDS = frozenset({"normal", "benign", "healthy", "nontumor", "nontumour", "noncancer", "noncancerous"})
POSITIVE_WORDS = frozenset(
    {"yes", "with", "has", "tumor", "tumour", "tumors", "tumours", "cancer", "cancerous", "malignant"}
    | {"metastasis", "metastases", "metastatic", "positive", "pos", "true"}
)
DIGITS = frozenset({"0", "1"})
NUMBER_SIGN = re.compile(r"(^|\s)[-.]\d")
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
    lowered = name.lower()
    *folders, file = lowered.split("/")
    if file in SYSTEM_FILES or file.endswith(SYSTEM_ENDINGS):
        return True
    return "/." in f"/{name}" or file in SYSTEM_FOLDERS or not SYSTEM_FOLDERS.isdisjoint(folders)


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
    """The class (0 or 1) that a name stands for, as `normal`, `1` or `b_has_tumor_tissue`.

    None for any other name, and where that is not plain, as for `-1`, `non-normal` and `false_negative`.
    """
    own = [word for word in words(name) if word not in FILLER_WORDS]
    known = [set(own) & each for each in (NEGATIONS, NORMAL_WORDS, POSITIVE_WORDS)]
    digits = [word for word in own if word in DIGITS]
    if set(own) - set().union(*known, digits) or len(digits) > 1 or NUMBER_SIGN.search(name):
        return None
    negations, normal, positive = known
    if len(negations) > 1 or (normal and (negations or positive)):
        return None
    classes = {int(digit) for digit in digits}
    if negations or normal or positive:
        classes.add(0 if negations or normal else 1)
    return classes.pop() if len(classes) == 1 else None
