"""Downloads of PCam's official files: complete, the published ones, and requested once."""

import hashlib

import pytest
from official_files import official_folder
from web_standin import Standin

from pcam_model.core.errors import ConfigError, SourceError, TransientError
from pcam_model.data import official_download
from pcam_model.data.http_download import BLOCK_BYTES, download
from pcam_model.data.official_files import PREFIX
from pcam_model.data.pack import build_pack, load_table
from pcam_model.data.source import SourceConfig, fetch

LABELS = f"{PREFIX}_train_y.h5.gz"


class FakeClock:
    """Sleeps without waiting; `sleeps` are the seconds asked for."""

    def __init__(self) -> None:
        self.sleeps: list[float] = []

    def monotonic(self) -> float:
        return sum(self.sleeps)

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    fake = FakeClock()
    monkeypatch.setattr("pcam_model.core.retry.CLOCK", fake)
    return fake


@pytest.fixture
def serve(monkeypatch):
    """serve(**Standin fields) -> a stand-in server and its address, which no proxy stands before."""
    servers = []
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")

    def start(**fields):
        standin = Standin(**fields)
        servers.append(standin.serve())
        return standin, f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def site(tmp_path, monkeypatch, serve):
    """A site with the official files, whose MD5s are taken for the published ones."""
    folder = official_folder(tmp_path / "official")
    files = {f"/records/files/{path.name}": path.read_bytes() for path in folder.iterdir()}
    md5s = {name.rpartition("/")[2].removeprefix(f"{PREFIX}_"): {md5(content)} for name, content in files.items()}
    monkeypatch.setattr(official_download, "PUBLISHED_MD5", md5s)
    monkeypatch.setattr("pcam_model.data.official_files.PUBLISHED_MD5", md5s)
    standin, address = serve(files=files)
    standin.address = f"{address}/records/files"
    return standin


@pytest.fixture
def one_file(serve):
    """A site with one file of several blocks."""
    standin, address = serve(files={"/a": bytes(range(256)) * 12 * 1024})
    standin.address = f"{address}/a"
    return standin


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def downloads_right(one_file, tmp_path, with_md5=True):
    """Download the site's file; whether it is there, alone and with the right content."""
    md5s = frozenset({md5(one_file.files["/a"])} if with_md5 else ())
    assert download(one_file.address, tmp_path / "a", md5s)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    return (tmp_path / "a").read_bytes() == one_file.files["/a"]


def test_a_web_address_gives_what_its_folder_gives_and_is_downloaded_once(tmp_path, site):
    config = SourceConfig(kind="path", path=f"{site.address}/?download=1")
    archive = fetch(config, 2, tmp_path / "downloads")
    assert sorted(site.requests) == [""] * 9
    assert fetch(config, 2, tmp_path / "downloads") == archive
    assert len(site.requests) == 9
    here = fetch(SourceConfig(kind="path", path=str(tmp_path / "official")), 2)
    assert here.sha256 == archive.sha256
    rows = load_table(build_pack(archive, config, tmp_path / "packs", 2))
    assert set(rows["origin"]) == {"train", "valid", "test"}
    assert rows["slide"].notna().all()


def test_another_file_than_the_published_one_is_refused(tmp_path, site):
    site.files[f"/records/files/{LABELS}"] += b"0"
    with pytest.raises(SourceError, match=r"train_y\.h5\.gz: its MD5 is .* was published"):
        fetch(SourceConfig(kind="path", path=site.address), 2, tmp_path)
    assert not list(tmp_path.rglob("*_y.h5*.part"))


def test_own_files_need_no_published_md5_and_may_be_unpacked_and_few(tmp_path, site):
    folder = official_folder(tmp_path / "own", packed=False, counts={"train": 8, "valid": 4}, meta=False)
    site.files = {f"/records/files/{path.name}": path.read_bytes() for path in folder.iterdir()}
    config = SourceConfig(kind="path", path=site.address, verify_md5=False)
    archive = fetch(config, 2, tmp_path / "downloads")
    assert "for which no MD5 was published" in archive.source
    assert build_pack(archive, config, tmp_path / "packs", 2).count == 12


def test_an_address_without_the_files_is_refused(tmp_path, site):
    with pytest.raises(SourceError, match="none of PCam's official files at this address"):
        fetch(SourceConfig(kind="path", path=f"{site.address}/else"), 2, tmp_path)


def test_an_address_with_credentials_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds credentials"):
        fetch(SourceConfig(kind="path", path="https://ada:secret@example.org/files"), 2, tmp_path)


def test_a_download_resumes_after_each_of_three_cuts(tmp_path, one_file):
    one_file.cuts = [BLOCK_BYTES + 100, BLOCK_BYTES, 10]
    assert downloads_right(one_file, tmp_path)
    starts = [int(header.removeprefix("bytes=").rstrip("-") or 0) for header in one_file.requests]
    assert starts == sorted(starts)
    assert starts[0] == 0
    assert starts[1] >= BLOCK_BYTES
    assert len(starts) == 4


def test_what_another_process_left_is_resumed_where_there_is_an_md5(tmp_path, one_file):
    (tmp_path / "a.part").write_bytes(one_file.files["/a"][:1000])
    assert downloads_right(one_file, tmp_path)
    assert one_file.requests == ["bytes=1000-"]


def test_what_another_process_left_is_discarded_without_an_md5(tmp_path, one_file):
    (tmp_path / "a.part").write_bytes(b"something else")
    assert downloads_right(one_file, tmp_path, with_md5=False)
    assert one_file.requests == [""]


def test_a_left_part_of_another_file_is_discarded(tmp_path, one_file):
    (tmp_path / "a.part").write_bytes(b"something else")
    assert downloads_right(one_file, tmp_path)
    assert one_file.requests == ["bytes=14-", ""]


def test_a_server_without_ranges_starts_again(tmp_path, one_file):
    one_file.ranges, one_file.cuts = False, [BLOCK_BYTES + 100, 2 * BLOCK_BYTES + 100]
    assert downloads_right(one_file, tmp_path)


def test_a_file_that_changes_between_two_requests_is_not_mixed(tmp_path, one_file):
    def change():
        one_file.files["/a"], one_file.etag = bytes(1 << 21), '"two"'

    one_file.cuts, one_file.after_cut = [BLOCK_BYTES + 100], change
    assert downloads_right(one_file, tmp_path, with_md5=False)
    assert one_file.files["/a"] == bytes(1 << 21)


def test_a_busy_server_is_retried_after_the_time_it_asks_for(tmp_path, one_file, clock):
    one_file.answers = [(503, {}), (429, {"Retry-After": "7"}), (503, {})]
    assert downloads_right(one_file, tmp_path)
    assert clock.sleeps == [2.0, 7.0, 8.0]


def test_a_server_may_not_ask_for_more_than_ten_minutes(tmp_path, one_file, clock):
    one_file.answers = [(503, {"Retry-After": "86400"})]
    assert downloads_right(one_file, tmp_path)
    assert clock.sleeps == [600.0]


def test_a_server_that_stays_busy_is_a_transient_error(tmp_path, one_file, clock):
    one_file.answers = [(503, {})] * 100
    with pytest.raises(TransientError, match="after 8 attempts: the server answers 503"):
        downloads_right(one_file, tmp_path)
    assert clock.sleeps == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


def test_a_refusal_is_not_retried(tmp_path, one_file, clock):
    one_file.answers = [(403, {})] * 5
    with pytest.raises(SourceError, match=r"refuses it \(403\)"):
        downloads_right(one_file, tmp_path)
    assert one_file.requests == [""]
    assert clock.sleeps == []


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/a", "http://[::1", "http://a b/", "/a"])
def test_a_redirect_that_leads_nowhere_is_refused_at_once(tmp_path, one_file, clock, location):
    one_file.answers = [(302, {"Location": location})] * 100
    with pytest.raises(SourceError, match=r"redirects .*correct the address"):
        downloads_right(one_file, tmp_path)
    assert clock.sleeps == []
    assert list(tmp_path.iterdir()) == []
