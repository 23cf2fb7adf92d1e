"""Kaggle's layout: train/<id>.<tif|png|jpg> with train_labels.csv, and perhaps an unlabelled test/."""

from pathlib import Path

import numpy as np
import pandas as pd

from pcam_model.core.errors import SourceError
from pcam_model.data.container import LARGEST_TABLE, Container, open_container
from pcam_model.data.csv_tables import read_listing
from pcam_model.data.image import Decoder, Patch, PatchError
from pcam_model.data.names import IMAGES, LABELS, LITTER

# Spreadsheets and data frames write labels as decimals.
VALUES = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
SAMPLE = "sample_submission.csv"


class KagglePatches:
    """The patches of a Kaggle-layout archive or folder, labelled ones first."""

    def __init__(self, path: Path) -> None:
        self.container: Container = open_container(path)
        self.decode = Decoder()
        names = list(self.container.names())
        top = top_folder(path, names)
        labels = read_labels(path, self.container, top)
        refuse_strays(path, names, top)
        train, test = (images(path, names, f"{top}{part}/") for part in ("train", "test"))
        test = as_submitted(path, self.container, names, top, test)
        self.table = joined(path, labels, train, test)
        self.members: list[str] = self.table["member"].tolist()

    def close(self) -> None:
        """Let go of the archive."""
        self.container.close()

    def patch(self, row: int) -> Patch:
        """The patch in this row: uint8 (96, 96, 3). Raises PatchError. Any thread may call it."""
        return self.decode(self.container.read(self.members[row]))


def top_folder(path: Path, names: list[str]) -> str:
    """The folder, with its slash, in which train_labels.csv stands: "", or the one that holds everything."""
    found = sorted((n for n in names if n.rpartition("/")[2] == LABELS), key=lambda n: n.count("/"))
    if not names:
        raise SourceError(f"{path}: it is empty; expected train/ID.tif images and {LABELS}; download it again")
    if not found:
        raise SourceError(
            f"{path}: there is no {LABELS} among its {len(names):,} files; expected train/ID.tif images and a "
            f"{LABELS} with the columns id,label; add it, or choose another source"
        )
    return found[0][: -len(LABELS)]


def read_labels(path: Path, container: Container, top: str) -> "pd.Series[int]":
    """Labels (0 or 1) by id."""
    try:
        table = read_listing(container.read(f"{top}{LABELS}", LARGEST_TABLE))
    except (PatchError, ValueError) as error:
        raise SourceError(
            f"{path}: {LABELS} cannot be read ({error}); expected a CSV with the columns id,label"
        ) from error
    if not {"id", "label"} <= set(table.columns):
        raise SourceError(
            f"{path}: {LABELS} has the columns {','.join(table.columns)}; expected id,label; mend its first line"
        )
    wrong = table[~table["label"].isin(VALUES)]
    if len(wrong):
        raise SourceError(
            f"{path}: {LABELS} gives the label {wrong['label'].iat[0]!r} to {wrong['id'].iat[0]!r} ({len(wrong):,} "
            "such lines); a label is 0 or 1; mend these lines"
        )
    twice = table["id"][table["id"].duplicated()]
    if len(twice):
        raise SourceError(
            f"{path}: {LABELS} names {twice.iat[0]} twice ({len(twice):,} such lines); each id belongs once; remove "
            "the repeated lines"
        )
    if (nameless := (table["id"] == "").sum()) > 0:
        raise SourceError(f"{path}: {LABELS} has {nameless:,} lines without an id; give each its id, or remove it")
    return table.set_index("id")["label"].map(VALUES).astype(int)


def refuse_strays(path: Path, names: list[str], top: str) -> None:
    """Raise SourceError for images that would be ignored: those outside train/ and test/, those of an unknown kind."""
    places = (f"{top}train/", f"{top}test/")
    for name in names:
        folder, slash, file = name.rpartition("/")
        known = file.rpartition(".")[2].lower() in IMAGES
        if known == (folder + slash in places) or file.startswith(".") or file in LITTER:
            continue
        if known or folder + slash in places:
            raise SourceError(
                f"{path}: {name} would be ignored; patches are .tif, .png or .jpg files in {places[0]} (labelled) or "
                f"{places[1]} (unlabelled); move or remove it"
            )


def images(path: Path, names: list[str], folder: str) -> "pd.Series[str]":
    """Members of one folder by id, in the order of the archive."""
    found: dict[str, str] = {}
    for name in names:
        above, slash, file = name.rpartition("/")
        stem, _, suffix = file.rpartition(".")
        if above + slash != folder or stem.startswith(".") or not stem or suffix.lower() not in IMAGES:
            continue
        if stem in found:
            raise SourceError(
                f"{path}: the id {stem} has two images, {found[stem]} and {name}; each id belongs once; "
                "remove one of them"
            )
        found[stem] = name
    return pd.Series(found, dtype=object)


def as_submitted(
    path: Path, container: Container, names: list[str], top: str, test: "pd.Series[str]"
) -> "pd.Series[str]":
    """The unlabelled images in the order of sample_submission.csv, where there is one: a submission keeps it."""
    if test.empty or f"{top}{SAMPLE}" not in names:
        return test
    try:
        asked = read_listing(container.read(f"{top}{SAMPLE}", LARGEST_TABLE))["id"].drop_duplicates()
    except (PatchError, ValueError, KeyError) as error:
        raise SourceError(
            f"{path}: {SAMPLE} cannot be read ({error}); expected a CSV with the columns id,label"
        ) from error
    lost = asked[~asked.isin(test.index)]
    if len(lost):
        raise SourceError(
            f"{path}: {SAMPLE} names {len(lost):,} patches that are not in test/ (first: {lost.iat[0]}); a submission "
            "needs them all; the archive is incomplete, get it again, or remove test/ to do without"
        )
    rest = test.index[~test.index.isin(asked)]
    return test[[*asked, *rest]]


def joined(path: Path, labels: "pd.Series[int]", train: "pd.Series[str]", test: "pd.Series[str]") -> pd.DataFrame:
    """One table (id, label, slide, origin, member); every label has its image and every image its label."""
    lost = labels.index.difference(train.index)
    if len(lost):
        raise SourceError(
            f"{path}: {LABELS} names {len(lost):,} patches that are not in train/ (first: {lost[0]}); every label "
            f"belongs to an image; {likely(lost, train.index)}"
        )
    stray = train.index.difference(labels.index)
    if len(stray):
        raise SourceError(
            f"{path}: train/ holds {len(stray):,} images without a label (first: {stray[0]}); every image in train/ "
            f"belongs in {LABELS}; add their lines, or move the images to test/"
        )
    both = train.index.intersection(test.index)
    if len(both):
        raise SourceError(f"{path}: the id {both[0]} stands in train/ and in test/; each id belongs once; remove one")
    if train.empty:
        raise SourceError(
            f"{path}: {LABELS} holds no patches; expected lines such as ID,0 and ID,1; get the archive again"
        )
    members = pd.concat([train, test])
    known = pd.array([*labels[train.index], *[None] * len(test)], dtype="Int8")
    table = pd.DataFrame({"id": members.index.astype(str), "label": known, "member": members.to_numpy()})
    table["slide"] = np.full(len(table), None, dtype=object)
    table["origin"] = ["train"] * len(train) + ["test"] * len(test)
    return table


def likely(lost: "pd.Index[str]", there: "pd.Index[str]") -> str:
    """What probably happened to ids that have no image, and what to do."""
    if str(lost[0]).rpartition(".")[2].lower() in IMAGES:
        return "an id is a file's name without its ending; take the endings away"
    if {str(i).lower() for i in lost} & {str(i).lower() for i in there}:
        return "there are files of these names in other upper and lower case; write them the same"
    return "the archive is incomplete, get it again or remove these lines"
