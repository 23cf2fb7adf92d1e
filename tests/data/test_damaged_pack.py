"""A pack that changed between two starts is named and packed again; nothing is learnt from it."""

import json
import logging
import random
from pathlib import Path

import numpy as np
import pytest

from pcam_model.core.errors import SourceError
from pcam_model.data.image import PatchError
from pcam_model.data.image_inputs import Images
from pcam_model.data.pack import find_pack, load_patches, load_table, open_pack
from pcam_model.data.pack_verification import verify_pack

FILES = ("patches.npy", "patches.parquet", "pack.json")


def flip(path: Path, at: float) -> None:
    """Flip a bit of the byte at this fraction of the file."""
    content = bytearray(path.read_bytes())
    content[int(at * (len(content) - 1))] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("at", [0.0, 0.001, 0.3, 0.5, 0.77, 1.0])
def test_a_flipped_byte_anywhere_is_named_and_the_source_packed_again(kaggle_zip, pack, messages, name, at):
    first = pack(kaggle_zip)
    pixels, table = np.array(load_patches(first)), load_table(first)
    flip(Path(first.folder) / name, at)
    assert pack(kaggle_zip) == first
    (warning,) = (record.getMessage() for record in messages.records if record.levelno == logging.WARNING)
    assert warning.startswith(first.folder)
    assert warning.endswith(". It is packed again")
    assert np.array_equal(load_patches(first), pixels)
    assert load_table(first).equals(table)
    verify_pack(open_pack(Path(first.folder)))


def test_a_whole_pack_is_verified_and_left_as_it_is(kaggle_zip, pack, messages):
    messages.set_level(logging.DEBUG, "pcam_model")
    first = pack(kaggle_zip)
    messages.clear()
    assert pack(kaggle_zip) == first
    assert "Pack: 24 patches verified in" in messages.text


def test_a_damaged_pack_is_not_found_by_its_digest_and_removed(kaggle_zip, pack, messages):
    first = pack(kaggle_zip)
    packs = Path(first.folder).parent
    assert find_pack(packs, first.digest) == first
    flip(Path(first.folder) / "patches.npy", 0.5)
    assert find_pack(packs, first.digest) is None
    assert "1 of 24 patches are not those that were packed (first: row 11); the disk or a copy" in messages.text
    assert not Path(first.folder).exists()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"null", b"{" * 100_000, b"\xff\xfe", b'{"count": -1e999}'])
def test_a_record_that_is_no_record_is_one_sentence(kaggle_zip, pack, content):
    folder = Path(pack(kaggle_zip).folder)
    (folder / "pack.json").write_bytes(content)
    with pytest.raises(SourceError, match=r"pack\.json is malformed .*; delete the folder and pack again$"):
        open_pack(folder)


def refusal(load, pack):
    """The SourceError's message; empty where the damage is in nothing that is read."""
    try:
        load(pack)
    except SourceError as error:
        return str(error)
    return ""


def test_garbage_in_header_and_footer_is_one_sentence(kaggle_zip, pack):
    built, chance = pack(kaggle_zip), random.Random(0)
    folder = Path(built.folder)
    header, table = (folder / "patches.npy").read_bytes()[:128], (folder / "patches.parquet").read_bytes()
    for _ in range(40):
        at = chance.randrange(125)
        with (folder / "patches.npy").open("r+b") as file:
            file.write(header[:at] + chance.randbytes(3) + header[at + 3 :])
        damaged = bytearray(table)
        damaged[-chance.randrange(4, 200)] ^= 1 << chance.randrange(8)
        (folder / "patches.parquet").write_bytes(damaged)
        messages = [message for load in (load_patches, load_table) if (message := refusal(load, built))]
        assert all("delete the folder and pack again" in message for message in messages)
        with pytest.raises(SourceError):
            verify_pack(built)


def test_the_order_of_axes_in_the_header_counts(kaggle_zip, pack):
    built = pack(kaggle_zip)
    path = Path(built.folder) / "patches.npy"
    path.write_bytes(path.read_bytes().replace(b"'fortran_order': False", b"'fortran_order': True ", 1))
    with pytest.raises(SourceError, match="expected uint8"):
        load_patches(built)


def test_a_prediction_names_the_damaged_patch_of_a_pack(kaggle_zip, pack):
    built = pack(kaggle_zip)
    flip(Path(built.folder) / "patches.npy", 0.5)
    images = Images([Path(built.folder)])
    assert np.array_equal(images.patch(3), load_patches(built)[3])
    with pytest.raises(PatchError, match="not those that were packed"):
        images.patch(11)


def test_a_pack_of_before_that_has_fewer_digests_opens(kaggle_zip, pack):
    path = Path(pack(kaggle_zip).folder) / "pack.json"
    record = json.loads(path.read_bytes())
    del record["sha256"], record["table_sha256"]
    path.write_text(json.dumps(record))
    verify_pack(open_pack(path.parent))
