"""PCam's official files from a web address: whole, the published ones, and asked for once."""

import hashlib

import pytest
from official_files import official_folder
from web_standin import Standin

from pcam_model.core.errors import ConfigError, SourceError, TransientError
from pcam_model.data import http_download as web
from pcam_model.data import official_download as remote
from pcam_model.data.official_files import PREFIX
from pcam_model.data.pack import build_pack, table
from pcam_model.data.source import SourceConfig, fetch

LABELS = f"{PREFIX}_train_y.h5.gz"


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A site with the official files, whose MD5s are taken for the published ones."""
    folder = official_folder(tmp_path / "official")
    files = {f"/records/files/{path.name}": path.read_bytes() for path in folder.iterdir()}
    sums = {name.rpartition("/")[2].removeprefix(f"{PREFIX}_"): {md5(content)} for name, content in files.items()}
    monkeypatch.setattr(remote, "PUBLISHED", sums)
    monkeypatch.setattr("pcam_model.data.official_files.PUBLISHED", sums)
    standin = Standin(files=files)
    server = standin.serve()
    standin.address = f"http://127.0.0.1:{server.server_port}/records/files"
    yield standin
    server.shutdown()
    server.server_close()


@pytest.fixture
def one(tmp_path):
    """A site with one file of some pieces."""
    standin = Standin(files={"/a": bytes(range(256)) * 12 * 1024})
    server = standin.serve()
    standin.address = f"http://127.0.0.1:{server.server_port}/a"
    yield standin
    server.shutdown()
    server.server_close()


class Waits(list):
    """The pauses that were asked for, without pausing."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def got(one, tmp_path, waits=None, published=True):
    sums = frozenset({md5(one.files["/a"])} if published else ())
    assert web.download(one.address, tmp_path / "a", sums, Waits() if waits is None else waits)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    return (tmp_path / "a").read_bytes() == one.files["/a"]


def test_an_address_is_as_good_as_a_folder_and_is_asked_once(tmp_path, site):
    config = SourceConfig(kind="path", path=f"{site.address}/?download=1")
    archive = fetch(config, 2, tmp_path / "downloads")
    assert sorted(site.asked) == [""] * 9
    assert fetch(config, 2, tmp_path / "downloads") == archive and len(site.asked) == 9
    here = fetch(SourceConfig(kind="path", path=str(tmp_path / "official")), 2)
    assert here.sha256 == archive.sha256
    rows = table(build_pack(archive, config, tmp_path / "packs", 2))
    assert set(rows["origin"]) == {"train", "valid", "test"} and rows["slide"].notna().all()


def test_another_file_than_the_published_one_is_refused(tmp_path, site):
    site.files[f"/records/files/{LABELS}"] += b"0"
    with pytest.raises(SourceError, match=r"train_y\.h5\.gz: its MD5 is .* was published"):
        fetch(SourceConfig(kind="path", path=site.address), 2, tmp_path)
    assert not list(tmp_path.rglob("*_y.h5*.part"))


def test_own_files_need_no_published_sum_and_may_be_unpacked_and_few(tmp_path, site):
    folder = official_folder(tmp_path / "own", packed=False, sides={"train": 8, "valid": 4}, meta=False)
    site.files = {f"/records/files/{path.name}": path.read_bytes() for path in folder.iterdir()}
    config = SourceConfig(kind="path", path=site.address, verify_md5=False)
    archive = fetch(config, 2, tmp_path / "downloads")
    assert "for which no MD5 was published" in archive.source
    assert build_pack(archive, config, tmp_path / "packs", 2).count == 12


def test_an_address_without_the_files_says_what_belongs_there(tmp_path, site):
    with pytest.raises(SourceError, match="none of PCam's official files at this address"):
        fetch(SourceConfig(kind="path", path=f"{site.address}/else"), 2, tmp_path)


def test_an_address_shows_no_credentials(tmp_path):
    with pytest.raises(ConfigError, match="holds no credentials"):
        fetch(SourceConfig(kind="path", path="https://ada:secret@example.org/files"), 2, tmp_path)


def test_three_cuts_are_gone_on_from(tmp_path, one):
    one.cuts = [web.PIECE + 100, web.PIECE, 10]
    assert got(one, tmp_path)
    starts = [int(asked.removeprefix("bytes=").rstrip("-") or 0) for asked in one.asked]
    assert starts == sorted(starts) and starts[0] == 0 and starts[1] >= web.PIECE and len(starts) == 4


def test_what_another_process_left_is_gone_on_from_where_the_sum_can_tell(tmp_path, one):
    (tmp_path / "a.part").write_bytes(one.files["/a"][:1000])
    assert got(one, tmp_path) and one.asked == ["bytes=1000-"]


def test_what_another_process_left_is_not_believed_without_a_sum(tmp_path, one):
    (tmp_path / "a.part").write_bytes(b"something else")
    assert got(one, tmp_path, published=False) and one.asked == [""]


def test_a_left_part_of_another_file_is_found_out_and_asked_for_anew(tmp_path, one):
    (tmp_path / "a.part").write_bytes(b"something else")
    assert got(one, tmp_path) and one.asked == ["bytes=14-", ""]


def test_a_server_without_ranges_starts_again(tmp_path, one):
    one.ranges, one.cuts = False, [web.PIECE + 100, 2 * web.PIECE + 100]
    assert got(one, tmp_path)


def test_a_file_that_changes_between_two_requests_is_not_mixed(tmp_path, one):
    def change():
        one.files["/a"], one.etag = bytes(1 << 21), '"two"'

    one.cuts, one.after_cut = [web.PIECE + 100], change
    assert got(one, tmp_path, published=False) and one.files["/a"] == bytes(1 << 21)


def test_a_busy_server_is_waited_for_as_it_asks(tmp_path, one):
    one.answers, waits = [(503, {}), (429, {"Retry-After": "7"}), (503, {})], Waits()
    assert got(one, tmp_path, waits) and waits == [2.0, 7.0, 8.0]


def test_a_server_that_stays_away_is_said(tmp_path, one):
    one.answers, waits = [(503, {})] * 100, Waits()
    with pytest.raises(TransientError, match="after 8 attempts: the server answers 503"):
        got(one, tmp_path, waits)
    assert len(waits) == 8


def test_a_refusal_is_said_and_not_tried_again(tmp_path, one):
    one.answers = [(403, {})] * 5
    with pytest.raises(SourceError, match=r"refuses it \(403\)"):
        got(one, tmp_path)
    assert one.asked == [""]
