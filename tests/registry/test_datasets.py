"""A pack in the store is found by what was asked, arrives whole, and is what its digest says."""

import threading

import pytest

from pcam_model.core.errors import ModelError, SourceError
from pcam_model.registry.audit import verify
from pcam_model.registry.datasets import LISTING_FILE, fetch_dataset, find_dataset, upload_dataset

ASKED = {"source": "kaggle", "limit": None}
DIGEST = "a" * 64


@pytest.fixture
def made(tmp_path):
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "patches.npy").write_bytes(bytes(range(256)) * 5000)
    (folder / "pack.json").write_text("{}")
    (folder / ".hidden").write_text("under way")
    return folder


def check(folder):
    if (folder / "pack.json").read_text() != "{}":
        raise SourceError("another pack")


def test_what_was_kept_comes_back(tmp_path, store, made):
    assert find_dataset(store, ASKED) is None
    upload_dataset(store, ASKED, DIGEST, made)
    assert find_dataset(store, ASKED) == DIGEST
    assert find_dataset(store, {**ASKED, "limit": 4}) is None
    fetch_dataset(store, DIGEST, tmp_path / "back", check)
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == ["pack.json", "patches.npy"]
    assert (tmp_path / "back" / "patches.npy").read_bytes() == (made / "patches.npy").read_bytes()
    assert not (tmp_path / ".back.part").exists()


def test_keeping_again_sends_nothing_again(folder_store, made):
    upload_dataset(folder_store, ASKED, DIGEST, made)
    key = f"datasets/{DIGEST}/patches.npy"
    before = folder_store.stat(key).modified
    upload_dataset(folder_store, {**ASKED, "limit": 9}, DIGEST, made)
    assert folder_store.stat(key).modified == before
    assert find_dataset(folder_store, {**ASKED, "limit": 9}) == DIGEST


def test_a_pack_whose_keeping_broke_off_is_not_there(tmp_path, folder_store, made):
    upload_dataset(folder_store, ASKED, DIGEST, made)
    folder_store.delete(f"datasets/{DIGEST}/{LISTING_FILE}")
    with pytest.raises(ModelError, match="has no complete pack"):
        fetch_dataset(folder_store, DIGEST, tmp_path / "back", check)
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("content", [b"x" * 1_280_000, b"short"])
def test_a_damaged_object_is_refused(tmp_path, folder_store, made, content):
    upload_dataset(folder_store, ASKED, DIGEST, made)
    folder_store.write(f"datasets/{DIGEST}/patches.npy", content)
    with pytest.raises(ModelError, match="not the recorded one"):
        fetch_dataset(folder_store, DIGEST, tmp_path / "back", check)
    assert not (tmp_path / "back").exists()


def test_verifying_the_store_reads_its_packs_too(folder_store, made):
    upload_dataset(folder_store, ASKED, DIGEST, made)
    assert list(verify(folder_store)) == []
    folder_store.write(f"datasets/{DIGEST}/patches.npy", b"short")
    assert [fault.key for fault in verify(folder_store)] == [f"datasets/{DIGEST}/patches.npy"]
    folder_store.delete(f"datasets/{DIGEST}/{LISTING_FILE}")
    assert list(verify(folder_store)) == []


def test_another_pack_than_its_name_says_is_refused(tmp_path, folder_store, made):
    (made / "pack.json").write_text("[]")
    upload_dataset(folder_store, ASKED, DIGEST, made)
    with pytest.raises(ModelError, match="is not the pack of this digest"):
        fetch_dataset(folder_store, DIGEST, tmp_path / "back", check)
    assert [path.name for path in tmp_path.iterdir() if "back" in path.name] == []


def test_a_record_that_points_elsewhere_is_not_trusted(folder_store, made):
    upload_dataset(folder_store, ASKED, DIGEST, made)
    (key,) = (entry.key for entry in folder_store.entries("sources/"))
    folder_store.write(key, folder_store.read(key).replace(DIGEST.encode(), b"../../elsewhere"))
    with pytest.raises(ModelError, match=r"is malformed \(digest"):
        find_dataset(folder_store, ASKED)


def test_a_pickle_is_not_taken(tmp_path, folder_store, made):
    (made / "patches.npy").write_bytes(b"\x80\x04K\x01.")
    upload_dataset(folder_store, ASKED, DIGEST, made)
    with pytest.raises(ModelError, match="pickle"):
        fetch_dataset(folder_store, DIGEST, tmp_path / "back", check)


def test_two_at_once_make_one_folder(tmp_path, folder_store, made):
    upload_dataset(folder_store, ASKED, DIGEST, made)
    faults = []

    def fetch():
        try:
            fetch_dataset(folder_store, DIGEST, tmp_path / "back", check)
        except Exception as error:
            faults.append(error)

    both = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert faults == []
    assert (tmp_path / "back" / "pack.json").read_text() == "{}"
