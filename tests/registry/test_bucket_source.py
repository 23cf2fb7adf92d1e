"""A source in a bucket: an archive or a prefix, downloaded whole, once, and again where it has changed."""

from pathlib import Path
from typing import Any

import pytest
from patch_sets import make_patch_set

from pcam_model.core.errors import SourceError, StoreError
from pcam_model.data.pack import build_pack
from pcam_model.data.source import SourceConfig, fetch
from pcam_model.registry import bucket_source
from pcam_model.registry.backends.base import StoreUnavailable
from pcam_model.registry.backends.s3 import S3Store
from pcam_model.registry.bucket_source import fetch_bucket
from pcam_model.registry.factory import open_store


@pytest.fixture(params=["moto", pytest.param("real", marks=pytest.mark.s3)])
def prefix(request: pytest.FixtureRequest) -> str:
    """The address of an empty prefix of a bucket."""
    return str(request.getfixturevalue(f"{request.param}_settings"))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the objects that are read from here on."""
    keys: list[str] = []
    get = S3Store._get_object

    def noted(self: S3Store, key: str, **options: str) -> tuple[bytes, str]:
        keys.append(key)
        return get(self, key, **options)

    monkeypatch.setattr(S3Store, "_get_object", noted)
    return keys


def config(path: str) -> SourceConfig:
    return SourceConfig(kind="path", path=path)


def upload(prefix: str, folder: Path) -> None:
    store = open_store(prefix)
    for path in folder.rglob("*"):
        if path.is_file():
            store.upload(path.relative_to(folder).as_posix(), path)


def test_an_archive_and_a_prefix_give_what_they_give_on_this_machine(
    prefix: str, reads: list[str], tmp_path: Path
) -> None:
    made = make_patch_set(24)
    upload(f"{prefix}/set", made.folder(tmp_path / "set"))
    open_store(prefix).upload("patches.zip", made.zip(tmp_path / "patches.zip"))
    for name, count in (("patches.zip", 1), ("set", 25), ("set/", 25)):
        uri, here = f"{prefix}/{name}", fetch(config(str(tmp_path / name)), 2)
        archive = fetch(config(uri), 2, tmp_path / "downloads", fetch_bucket)
        assert archive.sha256 == here.sha256
        assert build_pack(archive, config(uri), tmp_path / "packs", 2).count == 24
        assert len(reads) in (count, 0), name  # set/ is set
        reads.clear()
        assert fetch(config(uri), 2, tmp_path / "downloads", fetch_bucket) == archive
        assert reads == []


def test_what_has_changed_in_the_bucket_is_read_again_and_what_is_gone_goes(
    prefix: str, reads: list[str], tmp_path: Path
) -> None:
    store = open_store(prefix)
    for name in ("a.txt", "b/c.txt", "d.txt", "b/e.txt"):
        store.write(name, name.encode())
    folder = fetch_bucket(prefix, tmp_path)
    store.write("a.txt", b"A.txt")  # of the same size
    store.delete("d.txt")
    reads.clear()
    assert fetch_bucket(prefix, tmp_path) == folder
    assert reads == ["a.txt"]
    files = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert files == {"a.txt": "A.txt", "b/c.txt": "b/c.txt", "b/e.txt": "b/e.txt"}


def test_a_large_object_that_broke_off_is_resumed(
    moto_settings: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_source, "SMALL_BYTES", 10)
    content = bytes(range(256)) * 8
    open_store(moto_settings).write("a.bin", content)
    starts: list[int] = []

    def blocks(self: S3Store, key: str, start: int = 0) -> Any:
        starts.append(start)
        yield content[start : start + 1000]
        if len(starts) == 1:
            raise StoreUnavailable("away")
        yield content[start + 1000 :]

    monkeypatch.setattr(S3Store, "blocks", blocks)
    uri = f"{moto_settings}/a.bin"
    with pytest.raises(StoreUnavailable):
        fetch_bucket(uri, tmp_path)
    assert fetch_bucket(uri, tmp_path).read_bytes() == content
    assert starts == [0, 1000]
    assert not [path for path in tmp_path.rglob("*.part")]


def test_bytes_that_are_damaged_on_the_way_are_read_again_then_refused(
    moto_settings: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(moto_settings).write("a.bin", b"content")
    answers = [b"Content", b"content", b"CONTENT", b"cONTENT"]
    monkeypatch.setattr(S3Store, "read", lambda *_: answers.pop(0))
    assert fetch_bucket(f"{moto_settings}/a.bin", tmp_path / "one").read_bytes() == b"content"
    with pytest.raises(SourceError, match=r"a\.bin: its bytes are others each time"):
        fetch_bucket(f"{moto_settings}/a.bin", tmp_path / "two")
    assert not [path for path in tmp_path.rglob("a.bin*") if "two" in path.parts]


def test_an_encrypted_objects_etag_is_no_md5(
    moto_settings: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(moto_settings).write("a.bin", b"content")
    monkeypatch.setattr(S3Store, "read", lambda *_: b"decoded")  # the same each time, of the same size
    assert fetch_bucket(f"{moto_settings}/a.bin", tmp_path).read_bytes() == b"decoded"


def test_an_object_that_is_replaced_meanwhile_is_not_mixed(
    moto_settings: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(moto_settings).write("a.bin", b"content")
    monkeypatch.setattr(S3Store, "read", lambda *_: b"other content")
    with pytest.raises(SourceError, match="was replaced while it was downloaded"):
        fetch_bucket(f"{moto_settings}/a.bin", tmp_path)


def test_nothing_there_no_bucket_and_credentials_in_the_address_are_refused(moto_settings: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no object of this name, and none below it"):
        fetch_bucket(f"{moto_settings}/none.zip", tmp_path)
    with pytest.raises(StoreError, match="no such bucket"):
        fetch_bucket("s3://there-is-none/x", tmp_path)
    with pytest.raises(StoreError, match="holds no credentials"):
        fetch_bucket("s3://key:secret@bucket/x", tmp_path)
    assert not list(tmp_path.iterdir())
