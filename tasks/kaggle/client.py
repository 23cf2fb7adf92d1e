"""The competition's archive, from Kaggle's own client, whole and verified. Imported only where it is asked for."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pcam_model.core.errors import SourceError, TransientError
from pcam_model.core.files import disk_space_guard, exclusive_lock, sha256, write_atomic
from pcam_model.data.archive_check import verify_archive
from pcam_model.data.http_download import backoff
from pcam_model.data.source import Archive
from tasks.kaggle.answers import COMPETITION, verdict
from tasks.kaggle.session import signed_in

LABELLED, UNLABELLED = 220_025, 57_458
ATTEMPTS = 8


def download_competition(
    folder: Path,
    *,
    labelled: int = LABELLED,
    unlabelled: int = UNLABELLED,
    wait: Callable[[float], None] = time.sleep,
) -> Archive:
    """The competition's zip in `folder`, every member's checksum and the counts of patches verified.

    Goes on with an interrupted download; a file verified before is not asked for again.

    Raises:
        SourceError: Kaggle refuses, for want of credentials or of accepted rules, or what it sends stays broken.
        TransientError: Kaggle cannot be reached, after several attempts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{COMPETITION}.zip"
    with disk_space_guard(folder), exclusive_lock(folder):
        known = seen_before(path)
        if known is None:
            known = fetched(path, labelled, unlabelled, wait)
            mark(path, known)
    return Archive(path=str(path), sha256=known, source=f"Kaggle competition {COMPETITION}")


def fetched(path: Path, labelled: int, unlabelled: int, wait: Callable[[float], None]) -> str:
    """Download and verify; what arrives broken is thrown away and asked for once more. Gives the SHA-256."""
    for last in (False, True):
        with_patience(path.parent, wait)
        try:
            verify_archive(path, labelled, unlabelled)
            return sha256(path)
        except SourceError:
            discard(path)
            if last:
                raise
    raise AssertionError("unreachable")


def with_patience(folder: Path, wait: Callable[[float], None]) -> None:
    """Let Kaggle's client download; what passes by itself is waited for, what does not is said."""
    from requests import RequestException

    trouble: Exception | None = None
    for attempt in range(ATTEMPTS):
        try:
            return download_once(folder)
        except RequestException as error:
            trouble, pause = error, verdict(error, attempt)
        # Kaggle's client: a body that is not as long as announced, such as an error page in place of the file.
        except ValueError as error:
            trouble, pause = error, backoff(attempt)
            discard(folder / f"{COMPETITION}.zip")
        if attempt + 1 < ATTEMPTS:
            wait(pause)
    raise TransientError(f"Kaggle cannot be reached, or breaks off, after {ATTEMPTS} attempts: {trouble}") from trouble


def download_once(folder: Path) -> None:
    """One call of Kaggle's own client."""
    api = signed_in()
    api.competition_download_files(COMPETITION, path=str(folder), quiet=not sys.stderr.isatty())


def may_download() -> None:
    """Ask for the archive and read none of it. Raises SourceError where Kaggle refuses, or requests' own errors."""
    from kagglesdk.competitions.types.competition_api_service import ApiDownloadDataFilesRequest
    from requests import HTTPError

    request = ApiDownloadDataFilesRequest()
    request.competition_name = COMPETITION
    with signed_in().build_kaggle_client() as kaggle:
        try:
            kaggle.competitions.competition_api_client.download_data_files(request).close()
        except HTTPError as error:
            verdict(error, 0)
            raise


def seen_before(path: Path) -> str | None:
    """The SHA-256 of a file that was verified and is as it was then."""
    try:
        known = json.loads(path.with_suffix(".json").read_bytes())
        now = path.stat()
    except (OSError, ValueError):
        return None
    return str(known["sha256"]) if [now.st_size, now.st_mtime_ns] == known["size_and_time"] else None


def mark(path: Path, digest: str) -> None:
    """Remember that the file was verified."""
    now = path.stat()
    content = {"sha256": digest, "size_and_time": [now.st_size, now.st_mtime_ns]}
    write_atomic(path.with_suffix(".json"), json.dumps(content).encode())


def discard(path: Path) -> None:
    """Remove a file and the marks beside it."""
    for left in (path, path.with_suffix(".json"), path.with_name(f"{path.name}.kaggle-partial")):
        left.unlink(missing_ok=True)
