"""Kaggle's layout: train/<id>.<tif|png|jpg> with train_labels.csv, and perhaps an unlabelled test/."""

from pathlib import Path

import numpy as np
import pandas as pd

from pcam_model.core.errors import SourceError
from pcam_model.data.container import MAX_TABLE_BYTES, Container, open_container
from pcam_model.data.csv_tables import read_csv_text
from pcam_model.data.image import IMAGE_SUFFIXES, LABELS_FILE, SYSTEM_FILES, Decoder, Patch, PatchError

# Spreadsheets and data frames write labels as decimals.
LABEL_VALUES = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
SUBMISSION_FILE = "sample_submission.csv"


class KagglePatches:
    """The patches of a Kaggle-layout archive or folder, labelled ones first."""

    def __init__(self, path: Path) -> None:
        """Open the archive or folder. Raises SourceError where images and labels do not belong together."""
        self.container: Container = open_container(path)
        self.decode = Decoder()
        names = list(self.container.names())
        top = find_top_folder(path, names)
        labels = read_labels(path, self.container, top)
        refuse_misplaced_images(path, names, top)
        train, test = (list_images(path, names, f"{top}{folder}/") for folder in ("train", "test"))
        test = in_submission_order(path, self.container, names, top, test)
        self.table = make_table(path, labels, train, test)
        self.members: list[str] = self.table["member"].tolist()

    def close(self) -> None:
        """Close the archive."""
        self.container.close()

    def patch(self, row: int) -> Patch:
        """The patch in this row: uint8 (96, 96, 3). Raises PatchError. Thread-safe."""
        return self.decode(self.container.read(self.members[row]))


def find_top_folder(path: Path, names: list[str]) -> str:
    """The folder of train_labels.csv with its slash; "" where it is in no folder."""
    tables = sorted((n for n in names if n.rpartition("/")[2] == LABELS_FILE), key=lambda n: n.count("/"))
    if not names:
        raise SourceError(f"{path}: it is empty; expected train/ID.tif images and {LABELS_FILE}; download it again")
    if not tables:
        raise SourceError(
            f"{path}: there is no {LABELS_FILE} among its {len(names):,} files; expected train/ID.tif images and a "
            f"{LABELS_FILE} with the columns id,label; add it, or choose another source"
        )
    return tables[0][: -len(LABELS_FILE)]


def read_labels(path: Path, container: Container, top: str) -> "pd.Series[int]":
    """Labels (0 or 1) by id."""
    try:
        table = read_csv_text(container.read(f"{top}{LABELS_FILE}", MAX_TABLE_BYTES))
    except (PatchError, ValueError) as error:
        raise SourceError(
            f"{path}: {LABELS_FILE} cannot be read ({error}); expected a CSV with the columns id,label"
        ) from error
    if not {"id", "label"} <= set(table.columns):
        raise SourceError(
            f"{path}: {LABELS_FILE} has the columns {','.join(table.columns)}; expected id,label; correct line 1"
        )
    wrong = table[~table["label"].isin(LABEL_VALUES)]
    if len(wrong):
        raise SourceError(
            f"{path}: {LABELS_FILE} gives the label {wrong['label'].iat[0]!r} to {wrong['id'].iat[0]!r} "
            f"({len(wrong):,} such lines); a label is 0 or 1; correct these lines"
        )
    repeated = table["id"][table["id"].duplicated()]
    if len(repeated):
        raise SourceError(
            f"{path}: {LABELS_FILE} names {repeated.iat[0]} twice ({len(repeated):,} such lines); each id belongs "
            "once; remove the repeated lines"
        )
    if (nameless := (table["id"] == "").sum()) > 0:
        raise SourceError(f"{path}: {LABELS_FILE} has {nameless:,} lines without an id; give each its id, or remove it")
    return table.set_index("id")["label"].map(LABEL_VALUES).astype(int)


def refuse_misplaced_images(path: Path, names: list[str], top: str) -> None:
    """Raise SourceError for files that would be ignored: images outside train/ and test/, other files inside them."""
    image_folders = (f"{top}train/", f"{top}test/")
    for name in names:
        folder, slash, file = name.rpartition("/")
        is_image = file.rpartition(".")[2].lower() in IMAGE_SUFFIXES
        is_inside = folder + slash in image_folders
        if is_image == is_inside or file.startswith(".") or file in SYSTEM_FILES:
            continue
        raise SourceError(
            f"{path}: {name} would be ignored; patches are .tif, .png or .jpg files in {image_folders[0]} (labelled) "
            f"or {image_folders[1]} (unlabelled); move or remove it"
        )


def list_images(path: Path, names: list[str], folder: str) -> "pd.Series[str]":
    """The image files of one folder by id, in the order of the archive."""
    members: dict[str, str] = {}
    for name in names:
        parent, slash, file = name.rpartition("/")
        stem, _, suffix = file.rpartition(".")
        if parent + slash != folder or stem.startswith(".") or not stem or suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if stem in members:
            raise SourceError(
                f"{path}: the id {stem} has two images, {members[stem]} and {name}; each id belongs once; "
                "remove one of them"
            )
        members[stem] = name
    return pd.Series(members, dtype=object)


def in_submission_order(
    path: Path, container: Container, names: list[str], top: str, test: "pd.Series[str]"
) -> "pd.Series[str]":
    """The unlabelled images in the order of sample_submission.csv, where there is one, and then the others."""
    if test.empty or f"{top}{SUBMISSION_FILE}" not in names:
        return test
    try:
        ids = read_csv_text(container.read(f"{top}{SUBMISSION_FILE}", MAX_TABLE_BYTES))["id"].drop_duplicates()
    except (PatchError, ValueError, KeyError) as error:
        raise SourceError(
            f"{path}: {SUBMISSION_FILE} cannot be read ({error}); expected a CSV with the columns id,label"
        ) from error
    missing = ids[~ids.isin(test.index)]
    if len(missing):
        raise SourceError(
            f"{path}: {SUBMISSION_FILE} names {len(missing):,} patches that are not in test/ (first: "
            f"{missing.iat[0]}); a submission needs them all; the archive is incomplete, download it again, or remove "
            "test/ to go without"
        )
    return test[[*ids, *test.index[~test.index.isin(ids)]]]


def make_table(path: Path, labels: "pd.Series[int]", train: "pd.Series[str]", test: "pd.Series[str]") -> pd.DataFrame:
    """One table (id, label, slide, origin, member); every label has its image and every image its label."""
    check_images_have_labels(path, labels, train)
    in_both = train.index.intersection(test.index)
    if len(in_both):
        raise SourceError(f"{path}: the id {in_both[0]} is in train/ and in test/; each id belongs once; remove one")
    if train.empty:
        raise SourceError(
            f"{path}: {LABELS_FILE} holds no patches; expected lines such as ID,0 and ID,1; download the archive again"
        )
    members = pd.concat([train, test])
    column = pd.array([*labels[train.index], *[None] * len(test)], dtype="Int8")
    table = pd.DataFrame({"id": members.index.astype(str), "label": column, "member": members.to_numpy()})
    table["slide"] = np.full(len(table), None, dtype=object)
    table["origin"] = ["train"] * len(train) + ["test"] * len(test)
    return table


def check_images_have_labels(path: Path, labels: "pd.Series[int]", train: "pd.Series[str]") -> None:
    """Raise SourceError for a label without its image, or an image in train/ without its label."""
    missing = labels.index.difference(train.index)
    if len(missing):
        raise SourceError(
            f"{path}: {LABELS_FILE} names {len(missing):,} patches that are not in train/ (first: {missing[0]}); every "
            f"label belongs to an image; {missing_images_hint(missing, train.index)}"
        )
    unlabelled = train.index.difference(labels.index)
    if len(unlabelled):
        raise SourceError(
            f"{path}: train/ holds {len(unlabelled):,} images without a label (first: {unlabelled[0]}); every image in "
            f"train/ belongs in {LABELS_FILE}; add their lines, or move the images to test/"
        )


def missing_images_hint(missing: "pd.Index[str]", present: "pd.Index[str]") -> str:
    """The likely reason why ids have no image, and what to do."""
    if str(missing[0]).rpartition(".")[2].lower() in IMAGE_SUFFIXES:
        return "an id is a file's name without its ending; take the endings away"
    if {str(i).lower() for i in missing} & {str(i).lower() for i in present}:
        return "there are files of these names in other upper and lower case; write them the same"
    return "the archive is incomplete, download it again or remove these lines"
