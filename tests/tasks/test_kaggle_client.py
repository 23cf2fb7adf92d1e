"""Kaggle's real client against a stand-in of its server: what arrives is whole, or is not there."""

import hashlib
import os
import time
from pathlib import Path

import pytest
from kaggle_standin import COUNTS, archive

from pcam_model.core.errors import SourceError, TransientError
from tasks.kaggle import session as kaggle_session
from tasks.kaggle.client import COMPETITION, download_competition

# Kaggle's client leaves its sockets to the garbage collector; the fixture `kaggle` has it come within the test.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
PIECE = 1 << 20  # the client keeps what arrives in pieces of this size


@pytest.fixture(autouse=True)
def no_waiting(waits):
    """No test waits."""


def download(tmp_path, **counts):
    return download_competition(tmp_path / "downloads", **{**COUNTS, **counts})


def whole(tmp_path, kaggle):
    path = tmp_path / "downloads" / f"{COMPETITION}.zip"
    return path.read_bytes() == kaggle.content and files(path.parent) == [f"{COMPETITION}.json", f"{COMPETITION}.zip"]


def nothing_left(tmp_path):
    return files(tmp_path / "downloads") == []


def files(folder):
    """The names of a folder's files, without lock files."""
    return sorted(path.name for path in folder.glob("[!.]*"))


def test_the_archive_arrives_whole_and_is_asked_for_once(tmp_path, signed_in, kaggle):
    archive = download(tmp_path)
    assert archive.sha256 == hashlib.sha256(kaggle.content).hexdigest()
    assert whole(tmp_path, kaggle)
    assert kaggle.user.startswith("Basic ")
    assert download(tmp_path) == archive
    assert kaggle.requests == ["start", ""]


def test_a_token_is_as_good(tmp_path, home, monkeypatch, kaggle):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "token")
    download(tmp_path)
    assert kaggle.user == "Bearer token"
    assert os.environ["KAGGLE_API_TOKEN"] == "token"


def test_credentials_in_a_closed_file_are_used(tmp_path, home, kaggle):
    path = home / ".kaggle" / "kaggle.json"
    path.write_text('{"username": "ada", "key": "secret"}')
    path.chmod(0o600)
    download(tmp_path)
    assert kaggle.user.startswith("Basic ")


def test_three_cuts_are_gone_on_from(tmp_path, signed_in, kaggle):
    kaggle.cuts = [PIECE + 100, PIECE + 7, 1000]
    download(tmp_path)
    assert whole(tmp_path, kaggle)
    assert kaggle.requests == ["start", "", f"bytes={PIECE}-", f"bytes={2 * PIECE}-", f"bytes={2 * PIECE}-"]


def test_a_server_that_falls_silent_is_not_waited_for_for_ever(tmp_path, signed_in, kaggle, monkeypatch):
    monkeypatch.setattr(kaggle_session, "TIMEOUTS_S", (5.0, 0.5))
    kaggle.cuts, kaggle.silence = [PIECE + 100], 3.0
    begun = time.monotonic()
    download(tmp_path)
    assert whole(tmp_path, kaggle)
    assert time.monotonic() - begun < 30
    assert kaggle.requests == ["start", "", f"bytes={PIECE}-"]


def test_a_download_that_broke_off_is_gone_on_from_by_the_next_process(tmp_path, signed_in, kaggle):
    kaggle.cuts = [PIECE + 100] + [0] * 500
    with pytest.raises(TransientError, match="breaks off"):
        download(tmp_path)
    kaggle.cuts, kaggle.requests = [], []
    download(tmp_path)
    assert whole(tmp_path, kaggle)
    assert kaggle.requests == ["start", "", f"bytes={PIECE}-"]


def test_a_server_without_ranges_starts_again(tmp_path, signed_in, kaggle):
    kaggle.ranges, kaggle.cuts = False, [PIECE + 100, 2 * PIECE + 100]
    download(tmp_path)
    assert whole(tmp_path, kaggle)


def test_a_file_that_changes_between_two_attempts_is_not_mixed(tmp_path, signed_in, kaggle):
    other = archive(tmp_path / "other.zip", seed=1)

    def change():
        kaggle.content, kaggle.etag = other, '"two"'

    kaggle.cuts, kaggle.after_cut = [PIECE + 100], change
    download(tmp_path)
    assert kaggle.content == other
    assert whole(tmp_path, kaggle)


def test_401_is_said_and_not_tried_again(tmp_path, signed_in, kaggle):
    kaggle.answers = [(401, {})] * 5
    with pytest.raises(SourceError, match="does not accept the credentials"):
        download(tmp_path)
    assert kaggle.requests == ["start"]
    assert nothing_left(tmp_path)


def test_403_says_where_to_accept_the_rules(tmp_path, signed_in, kaggle):
    kaggle.answers = [(403, {})] * 5
    with pytest.raises(
        SourceError, match=f"rules are not accepted.*https://www.kaggle.com/competitions/{COMPETITION}/rules"
    ):
        download(tmp_path)
    assert kaggle.requests == ["start"]
    assert nothing_left(tmp_path)


def test_429_is_waited_for_as_long_as_it_asks(tmp_path, signed_in, kaggle, waits):
    kaggle.answers = [(429, {"Retry-After": "7"}), (429, {})]
    download(tmp_path)
    assert waits == [7.0, 2.0]
    assert whole(tmp_path, kaggle)


def test_503_for_a_while_is_waited_for(tmp_path, signed_in, kaggle, waits):
    kaggle.answers = [(503, {})] * 4
    download(tmp_path)
    assert waits == [1.0, 2.0, 4.0, 8.0]
    assert whole(tmp_path, kaggle)


def test_503_for_ever_ends(tmp_path, signed_in, kaggle):
    kaggle.answers = [(503, {})] * 100
    with pytest.raises(TransientError, match="after 8 attempts"):
        download(tmp_path)
    assert len(kaggle.requests) == 8


@pytest.mark.parametrize("spoil", ["tail", "middle"])
def test_a_broken_body_of_the_right_length_is_asked_for_again_and_then_refused(tmp_path, signed_in, kaggle, spoil):
    content = bytearray(kaggle.content)
    start = len(content) // 2
    stop = {"tail": len(content), "middle": start + 50}[spoil]
    content[start:stop] = bytes(stop - start)
    kaggle.content = bytes(content)
    with pytest.raises(SourceError, match=r"truncated or damaged|members are broken"):
        download(tmp_path)
    assert kaggle.requests == ["start", ""] * 2
    assert nothing_left(tmp_path)


def test_a_set_that_is_not_whole_is_refused(tmp_path, signed_in, kaggle):
    with pytest.raises(SourceError, match="holds 100 labelled and 6 unlabelled patches; expected 100 and 7"):
        download(tmp_path, unlabelled=7)
    assert nothing_left(tmp_path)


def test_a_changed_file_is_not_believed(tmp_path, signed_in, kaggle):
    archive = download(tmp_path)
    with Path(archive.path).open("r+b") as file:
        file.write(b"PK\0\0")
    assert download(tmp_path) == archive
    assert whole(tmp_path, kaggle)


def test_no_credentials_say_where_to_get_them(tmp_path, home):
    with pytest.raises(SourceError, match="there are no Kaggle credentials; make a token"):
        download(tmp_path)


def test_credentials_that_others_can_read_are_refused(tmp_path, home):
    path = home / ".kaggle" / "kaggle.json"
    path.write_text('{"username": "ada", "key": "secret"}')
    path.chmod(0o644)
    with pytest.raises(SourceError, match=f"chmod 600 {path}"):
        download(tmp_path)
