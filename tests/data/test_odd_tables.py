"""Tables of labels as programs, servers and people leave them: read as they are meant, or refused with the reason."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from patch_sets import encoded, make_patch_set, some_patches

from pcam_model.core.errors import SourceError
from pcam_model.data.image_inputs import Images
from pcam_model.data.pack import Pack, load_patches, load_table

MakePack = Callable[..., Pack]
LABELS = "train_labels.csv"
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def with_table(folder: Path, change: Callable[[bytes], bytes]) -> Path:
    """A folder of 8 patches whose table is changed."""
    dataset = make_patch_set(8)
    dataset.files[LABELS] = change(dataset.files[LABELS])
    return dataset.folder(folder)


def test_lines_that_end_as_on_old_macs_are_lines(tmp_path: Path, pack: MakePack) -> None:
    assert pack(with_table(tmp_path / "a", lambda text: text.replace(b"\n", b"\r"))).count == 8
    long = with_table(tmp_path / "b", lambda text: (text + b"x,1\n" * 20_000).replace(b"\n", b"\r"))
    with pytest.raises(SourceError, match="names x twice"):
        pack(long)


REFUSED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "two columns of one name": (lambda text: text.replace(b"\n", b",1\n").replace(b"label,1", b"label,label"), "twice"),
    "one name in two cases": (lambda text: text.replace(b"\n", b",1\n").replace(b"label,1", b"label,Label"), "twice"),
    "no line of names": (
        lambda text: text.partition(b"\n")[2],
        "a patch: write a line id,label above it",
    ),
    "a pointer": (lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "run git lfs pull"),
    "a page": (lambda _: b"<!DOCTYPE html><html>log in</html>", "it is a web page"),
    "UTF-16 without its mark": (lambda text: text.decode().encode("utf-16-le"), "save it as CSV in UTF-8"),
    "zeros": (lambda text: bytes(len(text)), "nothing but zeros, as after a power cut"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_table_that_would_be_misread_is_refused(tmp_path: Path, pack: MakePack, case: str) -> None:
    change, message = REFUSED[case]
    with pytest.raises(SourceError, match=message) as caught:
        pack(with_table(tmp_path / "a", change))
    assert "\n" not in str(caught.value)
    assert "\0" not in str(caught.value)


def test_a_line_of_names_can_be_written_above_as_the_message_says(tmp_path: Path, pack: MakePack) -> None:
    folder = with_table(tmp_path / "a", lambda text: b"id,label\n" + text.partition(b"\n")[2])
    assert pack(folder).count == 8


def write_shard(path: Path, labels: list[Any], names: list[str] | None = None, **columns: list[bytes]) -> Path:
    """A shard of 8 patches as `datasets` writes it, with names of classes; `columns` stand before the images."""
    patches, _ = some_patches(8)
    images = [{"bytes": encoded(patch, "png"), "path": f"p{number}.png"} for number, patch in enumerate(patches)]
    others = {
        name: pa.array([{"bytes": each, "path": ""} for each in values], IMAGE) for name, values in columns.items()
    }
    table = pa.table({**others, "image": pa.array(images, IMAGE), "label": labels})
    if names:
        features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, path)
    return path


def packed_labels(pack: Pack) -> list[int]:
    return load_table(pack)["label"].tolist()


@pytest.mark.parametrize(
    ("labels", "names", "classes"),
    [
        ([1, 0] * 4, ["cancer", "normal"], []),  # sorted by the alphabet
        ([0, 1] * 4, ["normal", "tumor"], []),
        ([0, 1] * 4, ["0", "1"], []),
        ([0, 1] * 4, ["class_a", "class_b"], []),
        ([1, 0] * 4, ["M", "N"], ["N", "M"]),
        (["normal", "tumor"] * 4, None, []),
        (["N", "M"] * 4, None, ["N", "M"]),
        ([False, True] * 4, None, []),
        ([0.0, 1.0] * 4, None, []),
    ],
)
def test_labels_are_those_that_the_names_of_their_classes_say(
    tmp_path: Path, pack: MakePack, labels: list[Any], names: list[str] | None, classes: list[str]
) -> None:
    built = pack(write_shard(tmp_path / "train.parquet", labels, names), classes=classes)
    assert packed_labels(built) == [0, 1] * 4


def test_labels_the_other_way_round_are_said_aloud(
    tmp_path: Path, pack: MakePack, messages: pytest.LogCaptureFixture
) -> None:
    pack(write_shard(tmp_path / "train.parquet", [1, 0] * 4, ["cancer", "normal"]))
    assert "label 0 is cancer and 1 is normal there; 1 is tumour here" in messages.text


def test_labels_of_three_classes_are_refused(tmp_path: Path, pack: MakePack) -> None:
    with pytest.raises(SourceError, match="the label of row 2 is 2"):
        pack(write_shard(tmp_path / "train.parquet", [0, 1, 2, 0, 1, 2, 0, 1], ["normal", "tumor", "other"]))
    with pytest.raises(SourceError, match="the label of row 0 is -1"):
        pack(write_shard(tmp_path / "train.parquet", [-1, 1] * 4))


def test_the_column_of_patches_is_that_of_their_name(tmp_path: Path, pack: MakePack) -> None:
    masks = [encoded(np.zeros((96, 96, 3), np.uint8), "png")] * 8
    path = write_shard(tmp_path / "train.parquet", [0, 1] * 4, mask=masks)
    assert np.array_equal(load_patches(pack(path)), some_patches(8)[0])
    assert np.array_equal(Images([path]).patch(3), some_patches(8)[0][3])
    table = pq.read_table(path).rename_columns(["a", "b", "label"])
    pq.write_table(table, path)
    with pytest.raises(SourceError, match="its columns a, b hold files, and which are the patches is not plain"):
        pack(path)
