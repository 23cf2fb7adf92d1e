"""What every room of the store promises: one suite over all of them."""

import hashlib
import os
from pathlib import Path

import pytest
from at_once import together

from pcam_model.core.errors import StoreError
from pcam_model.registry.backends.base import Conflict, NotFound, Store
from pcam_model.registry.factory import open_store

LARGE = (33 << 20) + 17  # three parts, the last one short


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large.bin"
    path.write_bytes(os.urandom(1 << 20) * (LARGE >> 20) + os.urandom(17))
    return path


@pytest.mark.parametrize("content", [b"", b"x", b"\x00\xff" * 5000])
def test_what_is_written_is_read(store: Store, content: bytes) -> None:
    etag = store.write("a/b.json", content)
    assert store.read("a/b.json") == content
    assert store.get("a/b.json") == (content, etag)
    assert b"".join(store.blocks("a/b.json")) == content
    assert b"".join(store.blocks("a/b.json", 1)) == content[1:]
    entry = store.stat("a/b.json")
    assert entry is not None
    assert (entry.key, entry.size, entry.etag) == ("a/b.json", len(content), etag)


def test_what_is_not_there_is_said_to_be_so(store: Store, tmp_path: Path) -> None:
    for ask in (store.read, store.get, lambda key: list(store.blocks(key))):
        with pytest.raises(NotFound, match="a/missing"):
            ask("a/missing")
    with pytest.raises(NotFound):
        store.download("a/missing", tmp_path / "file")
    assert not (tmp_path / "file").exists()
    assert store.stat("a/missing") is None
    store.delete("a/missing")


def test_the_last_write_stands(store: Store) -> None:
    first = store.write("key", b"1")
    assert store.write("key", b"2") != first
    assert store.read("key") == b"2"


def test_only_if_absent_writes_once(store: Store) -> None:
    store.write("key", b"1", only_if_absent=True)
    with pytest.raises(Conflict, match="written by another process"):
        store.write("key", b"2", only_if_absent=True)
    assert store.read("key") == b"1"


def test_only_if_takes_the_etag_that_is_there_and_no_other(store: Store) -> None:
    first = store.write("key", b"1")
    second = store.write("key", b"2", only_if=first)
    with pytest.raises(Conflict):
        store.write("key", b"3", only_if=first)
    with pytest.raises((Conflict, StoreError)):
        store.write("absent", b"3", only_if=second)
    assert store.read("key") == b"2"
    assert store.stat("absent") is None


def test_of_many_writers_at_once_one_wins(store: Store) -> None:
    won = []

    def work(number: int) -> None:
        try:
            store.write("key", str(number).encode(), only_if_absent=True)
            won.append(number)
        except Conflict:
            pass

    together(8, work)
    assert len(won) == 1
    assert store.read("key") == str(won[0]).encode()


def test_swaps_by_many_at_once_lose_nothing(store: Store) -> None:
    store.write("line", b"start")

    def work(number: int) -> None:
        for turn in range(3):
            name = b" %d-%d" % (number, turn)
            while name not in (found := store.get("line"))[0]:
                try:
                    store.write("line", found[0] + name, only_if=found[1])
                except Conflict:
                    continue

    together(4, work)
    names = store.read("line").decode().split()[1:]
    assert sorted(names) == sorted(f"{number}-{turn}" for number in range(4) for turn in range(3))


def test_a_large_file_comes_back_as_it_went(store: Store, large: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(large.read_bytes()).hexdigest()
    assert not store.matches("large", large)
    assert store.upload("large", large) == digest
    assert store.matches("large", large)
    assert store.download("large", tmp_path / "back" / "file") == digest
    assert hashlib.sha256((tmp_path / "back" / "file").read_bytes()).hexdigest() == digest
    rest = b"".join(store.blocks("large", LARGE - 20))
    assert rest == large.read_bytes()[-20:]
    assert [path.name for path in (tmp_path / "back").iterdir()] == ["file"]


def test_it_holds_only_the_very_content(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    store.upload("file", path)
    path.write_bytes(b"two")
    assert not store.matches("file", path)


def test_a_listing_has_all_keys_in_order(store: Store) -> None:
    keys = ["runs/b/x", "runs/a/y", "runs/a/sub/z", "runs/ab/x", "channels/c.json"]
    for key in keys:
        store.write(key, key.encode())
    assert [entry.key for entry in store.entries()] == sorted(keys)
    assert [entry.key for entry in store.entries("runs/a/")] == ["runs/a/sub/z", "runs/a/y"]
    assert [entry.key for entry in store.entries("runs/a")] == ["runs/a/sub/z", "runs/a/y", "runs/ab/x"]
    assert [(entry.size, entry.etag) for entry in store.entries("channels/")] == [
        (15, store.stat("channels/c.json").etag)  # type: ignore[union-attr]
    ]
    assert list(store.folders("runs/")) == ["a", "ab", "b"]
    assert list(store.folders()) == ["channels", "runs"]
    assert list(store.folders("nothing/")) == []
    assert list(store.entries("nothing/")) == []


def test_what_is_deleted_is_gone(store: Store) -> None:
    store.write("runs/a/x", b"1")
    store.delete("runs/a/x")
    assert store.stat("runs/a/x") is None
    assert list(store.folders("runs/")) == []


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", ".lock", "a/.hidden", "a\\b", "a\0"]
)
def test_a_key_that_climbs_out_or_hides_is_refused(store: Store, key: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    asks = [store.read, store.stat, store.delete, lambda k: store.write(k, b""), lambda k: store.upload(k, path)]
    for ask in asks:
        with pytest.raises(StoreError, match="is no key of the store"):
            ask(key)


def test_names_with_unusual_letters_travel(store: Store) -> None:
    for key in ("a/größe 1+2%.json", "a/b=c&d?.json"):
        store.write(key, b"1")
        assert store.read(key) == b"1"
        assert key in [entry.key for entry in store.entries("a/")]


def test_the_address_opens_the_same_store(store: Store) -> None:
    store.write("key", b"1")
    assert open_store(store.uri).read("key") == b"1"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("", "the store's address is empty"),
        ("file://relative/path", "absolute path"),
        ("ftp://x/y", "unknown kind"),
        ("s3://", "names a bucket"),
        ("s3://bucket/../up", "is no key of the store"),
        ("s3:/bucket/x", "looks like an address and is none"),
        ("s3//bucket/x", "looks like an address and is none"),
        ("s3:bucket/x", "looks like an address and is none"),
        ("https:/bucket/x", "looks like an address and is none"),
        ("minio:/bucket/x", "looks like an address and is none"),
    ],
)
def test_an_address_that_is_none_is_refused(uri: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        open_store(uri)


def test_a_short_file_address_is_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_store(f"file:{tmp_path}/store").uri == open_store(f"file://{tmp_path}/store").uri
    assert open_store("./s3:/odd").uri == f"file://{tmp_path}/s3%3A/odd"
    assert list(tmp_path.iterdir()) == []


def test_credentials_in_an_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(StoreError, match="holds no credentials") as caught:
        open_store("s3://AKIA:verysecret@bucket/prefix")
    assert "verysecret" not in str(caught.value)
