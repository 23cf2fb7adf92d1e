"""Kaggle's layout: train/<id>.<tif|png|jpg> with train_labels.csv, and perhaps an unlabelled test/."""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pcam_model.core.errors import SourceError
from pcam_model.core.log import log
from pcam_model.data.container import MAX_TABLE_BYTES, Container
from pcam_model.data.container_patches import ContainerPatches, make_table, no_labels_message
from pcam_model.data.csv_tables import known_domains, read_csv_text
from pcam_model.data.file_names import LABELS_FILE, is_image, split_of
from pcam_model.data.image import PatchError
from pcam_model.data.label_ids import match_ids
from pcam_model.data.label_values import label_value
from pcam_model.data.open_container import open_container

SUBMISSION_FILE = "sample_submission.csv"
REWRITTEN_NUMBER = re.compile(r"\d([.,]\d+)?E\+\d+", re.IGNORECASE)


class KagglePatches(ContainerPatches):
    """The patches of a Kaggle-layout archive or folder, labelled ones first."""

    def __init__(self, path: Path, container: Container | None = None, classes: Sequence[str] = ()) -> None:
        """Open the archive or folder. Raises SourceError where images and labels do not belong together."""
        container = container or open_container(path)
        names = list(container.names())
        top = find_top_folder(path, names)
        labels = read_labels(path, container, top, classes)
        refuse_misplaced_files(path, names, top)
        in_folders = any("/" in each or "\\" in each for each in labels.index)
        train = list_images(path, names, top, is_test=False, in_folders=in_folders)
        test = list_images(path, names, top, is_test=True)
        test = in_submission_order(path, container, names, top, test)
        labels = by_image(path, labels, train)
        check_images_have_labels(path, labels, train)
        in_both = train.index.intersection(test.index)
        if len(in_both):
            raise SourceError(f"{path}: the id {in_both[0]} is in train/ and in test/; remove the one in test/")
        if train.empty:
            raise SourceError(
                f"{path}: {LABELS_FILE} holds no patches; expected lines such as ID,0 and ID,1, and an image for each"
            )
        ids = [str(each) for each in (*train.index, *test.index)]
        labels = labels.loc[train.index]
        all_labels = [*labels["label"].tolist(), *[None] * len(test)]
        domains = [*labels["domain"].tolist(), *[None] * len(test)] if "domain" in labels else None
        origins = ["train"] * len(train) + ["test"] * len(test)
        super().__init__(container, make_table(ids, all_labels, origins, [*train, *test], domains))


def find_top_folder(path: Path, names: Sequence[str]) -> str:
    """The folder of train_labels.csv with its slash; "" where it is in no folder."""
    tables = sorted((n for n in names if n.rpartition("/")[2] == LABELS_FILE), key=lambda n: n.count("/"))
    if not tables:
        raise SourceError(no_labels_message(path, names))
    if len(tables) > 1 and tables[0].count("/") == tables[1].count("/"):
        raise SourceError(
            f"{path}: there are two tables of labels, {tables[0]} and {tables[1]}; give the path of one's folder"
        )
    return tables[0][: -len(LABELS_FILE)]


def read_labels(path: Path, container: Container, top: str, classes: Sequence[str] = ()) -> pd.DataFrame:
    """Columns label (0 or 1) and, where the table has it, domain, by id.

    `classes` names both where the table holds names that are not the usual ones.
    """
    try:
        table = read_csv_text(container.read(f"{top}{LABELS_FILE}", MAX_TABLE_BYTES))
    except (PatchError, ValueError) as error:
        raise SourceError(
            f"{path}: {LABELS_FILE} cannot be read ({error}); expected a CSV with the columns id,label"
        ) from error
    if not {"id", "label"} <= set(table.columns):
        is_patch = label_value(str(table.columns[-1]), classes) is not None
        how = "its first line is a patch: write a line id,label above it" if is_patch else "correct line 1"
        raise SourceError(f"{path}: {LABELS_FILE} has the columns {','.join(table.columns)}; expected id,label; {how}")
    values = table["label"].map({value: label_value(value, classes) for value in table["label"].unique()})
    wrong = table[values.isna()]
    if len(wrong):
        raise SourceError(
            f"{path}: {LABELS_FILE} gives the label {wrong['label'].iat[0]!r} to {wrong['id'].iat[0]!r} "
            f"({len(wrong):,} such lines); a label is 0 or 1; correct these lines, or name both classes, 0 first, with "
            "source.classes"
        )
    if (nameless := (table["id"] == "").sum()) > 0:
        raise SourceError(f"{path}: {LABELS_FILE} has {nameless:,} lines without an id; give each its id, or remove it")
    repeated = table["id"][table["id"].duplicated()]
    if len(repeated):
        raise SourceError(
            f"{path}: {LABELS_FILE} names {repeated.iat[0]} twice ({len(repeated):,} such lines); each id belongs "
            "once; remove the repeated lines"
        )
    labels = pd.DataFrame({"label": values.to_numpy(int)}, index=pd.Index(table["id"], dtype=object))
    return labels.assign(domain=known_domains(table).to_numpy()) if "domain" in table else labels


def refuse_misplaced_files(path: Path, names: Sequence[str], top: str) -> None:
    """Raise SourceError for files that would be ignored: images above the table, other files among images."""
    folders = {name.rpartition("/")[0] for name in names if is_image(name)} - {top.rstrip("/")}
    for name in names:
        if name.startswith(top) if is_image(name) else name.rpartition("/")[0] not in folders:
            continue
        raise SourceError(
            f"{path}: {name} would be ignored; patches are image files in {top}train/ (labelled) or {top}test/ "
            "(unlabelled); move or remove it"
        )


def list_images(
    path: Path, names: Sequence[str], top: str, *, is_test: bool, in_folders: bool = False
) -> "pd.Series[str]":
    """The image files by id, in the order of the archive: those below a folder test/, or all others.

    An id is the file's name without its ending; with `in_folders`, where two files have one name, below train/.
    """
    images = [name.removeprefix(top) for name in names if is_image(name)]
    images = [image for image in images if (split_of(image.rpartition("/")[0]) == "test") == is_test]
    ids = [image.rpartition("/")[2].rpartition(".")[0] for image in images]
    if in_folders and len(set(ids)) < len(ids):
        ids = [image.removeprefix("train/").rpartition(".")[0] for image in images]
    members: dict[str, str] = {}
    for each, image in zip(ids, images, strict=True):
        if each in members:
            raise SourceError(_two_images_message(path, each, members[each], top + image, is_test))
        members[each] = top + image
    return pd.Series(members, dtype=object)


def _two_images_message(path: Path, image_id: str, first: str, second: str, is_test: bool) -> str:
    in_two_folders = first.rpartition("/")[0] != second.rpartition("/")[0]
    other = ", or write all ids with their folders, as FOLDER/ID" if in_two_folders and not is_test else ""
    return (
        f"{path}: the id {image_id} has two images, {first} and {second}; each id belongs once; remove one of them"
        f"{other}"
    )


def in_submission_order(
    path: Path, container: Container, names: Sequence[str], top: str, test: "pd.Series[str]"
) -> "pd.Series[str]":
    """The unlabelled images in the order of sample_submission.csv, where there is one, and then the others."""
    if test.empty or f"{top}{SUBMISSION_FILE}" not in names:
        return test
    try:
        ids = read_csv_text(container.read(f"{top}{SUBMISSION_FILE}", MAX_TABLE_BYTES))["id"].drop_duplicates()
    except (PatchError, ValueError, KeyError) as error:
        raise SourceError(
            f"{path}: {SUBMISSION_FILE} cannot be read ({error}); expected a CSV with the columns id,label; correct or "
            "remove it"
        ) from error
    missing = ids[~ids.isin(test.index)]
    if len(missing):
        raise SourceError(
            f"{path}: {SUBMISSION_FILE} names {len(missing):,} patches that are not in test/ (first: "
            f"{missing.iat[0]}); a submission needs them all; the archive is incomplete, download it again, or remove "
            "test/ to go without"
        )
    return test[[*ids, *test.index[~test.index.isin(ids)]]]


def by_image(path: Path, labels: pd.DataFrame, train: "pd.Series[str]") -> pd.DataFrame:
    """The labels by the ids of the images, where those of the table are written a little differently."""
    ids, spelling = match_ids(labels.index, train.index)
    if spelling:
        log.info("%s: the ids of %s are compared with the images' names %s", path, LABELS_FILE, spelling)
    return labels.set_index(ids)


def check_images_have_labels(path: Path, labels: pd.DataFrame, train: "pd.Series[str]") -> None:
    """Raise SourceError for a label without its image, or an image in train/ without its label."""
    missing = labels.index.difference(train.index)
    if len(missing):
        raise SourceError(
            f"{path}: {LABELS_FILE} names {len(missing):,} patches that are not in train/ (first: {missing[0]}); every "
            f"label belongs to an image; {missing_images_hint(missing, labels, train)}"
        )
    unlabelled = train.index.difference(labels.index)
    if len(unlabelled):
        raise SourceError(
            f"{path}: train/ holds {len(unlabelled):,} images without a label (first: {unlabelled[0]}); every image in "
            f"train/ belongs in {LABELS_FILE}; add their lines, or move the images to test/"
        )


def missing_images_hint(missing: "pd.Index[str]", labels: pd.DataFrame, train: "pd.Series[str]") -> str:
    """The likely reason why ids have no image, and what to do."""
    if any(REWRITTEN_NUMBER.fullmatch(str(each)) for each in missing):
        return "a spreadsheet has rewritten ids as numbers; take the table from its source, and do not save it there"
    if train.empty:
        return "there are no images; add them in train/"
    if len(missing) == len(labels):
        return (
            f"none has one, and the images' names are such as {train.index[0]}; write the names of the images, without "
            "endings, as ids, or take the table of these images"
        )
    return "where the archive is incomplete, download it again; else remove these lines"
