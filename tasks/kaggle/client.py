"""The competition's archive, downloaded by Kaggle's own client and verified. Imported only where it is used."""

import sys
from pathlib import Path

from pcam_model.core.errors import ModelError, SourceError, TransientError
from pcam_model.core.files import sha256, write_atomic
from pcam_model.core.locks import file_lock
from pcam_model.core.parsing import read_record
from pcam_model.core.retry import retry_call
from pcam_model.core.schema import Record
from pcam_model.core.write_guard import write_guard
from pcam_model.data.archive_check import verify_archive
from pcam_model.data.source import Archive
from tasks.kaggle.errors import COMPETITION, raise_if_refused, wait_s
from tasks.kaggle.session import sign_in

LABELLED, UNLABELLED = 220_025, 57_458
MAX_ATTEMPTS = 8


def download_competition(folder: Path, *, labelled: int = LABELLED, unlabelled: int = UNLABELLED) -> Archive:
    """Download the competition's zip into `folder`; every member's checksum and the counts of patches are verified.

    An interrupted download is resumed; a file that was verified before is not downloaded again.

    Raises:
        SourceError: Kaggle refuses, for want of credentials or of accepted rules, or what it sends is damaged twice.
        TransientError: Kaggle cannot be reached, after several attempts.
    """
    path = folder / f"{COMPETITION}.zip"
    with write_guard(folder), file_lock(folder / ".lock"):
        digest = verified_digest(path)
        if digest is None:
            digest = _download_verified(path, labelled, unlabelled)
            _record_digest(path, digest)
    return Archive(path=str(path), sha256=digest, source=f"Kaggle competition {COMPETITION}")


def _download_verified(path: Path, labelled: int, unlabelled: int) -> str:
    """Download and verify, a second time where the file is damaged; its SHA-256."""
    for is_last in (False, True):
        _download_with_retries(path)
        try:
            verify_archive(path, labelled, unlabelled)
            return sha256(path)
        except SourceError:
            _remove(path)
            if is_last:
                raise
    raise AssertionError("unreachable")


def _download_with_retries(path: Path) -> None:
    """Download with retries after faults that may pass."""
    from requests import RequestException

    def attempt() -> None:
        try:
            _download(path.parent)
        except RequestException as error:
            raise_if_refused(error)
            raise
        except ValueError:  # of Kaggle's client: a body of another length than announced, as of an error page
            _remove(path)
            raise

    def may_pass(error: BaseException) -> bool:
        return isinstance(error, RequestException | ValueError)

    try:
        retry_call(attempt, retry_on=may_pass, attempts=MAX_ATTEMPTS, wait_s=wait_s)
    except (RequestException, ValueError) as error:
        raise TransientError(
            f"Kaggle cannot be reached, or breaks off, after {MAX_ATTEMPTS} attempts: {error}"
        ) from error


def _download(folder: Path) -> None:
    """One call of Kaggle's own client."""
    sign_in().competition_download_files(COMPETITION, path=str(folder), quiet=not sys.stderr.isatty())


def request_download() -> None:
    """Request the archive without reading it.

    Raises:
        SourceError: Kaggle refuses.
        RequestException: Kaggle cannot be reached.
    """
    from kagglesdk.competitions.types.competition_api_service import ApiDownloadDataFilesRequest
    from requests import HTTPError

    request = ApiDownloadDataFilesRequest()
    request.competition_name = COMPETITION
    with sign_in().build_kaggle_client() as kaggle:
        try:
            kaggle.competitions.competition_api_client.download_data_files(request).close()
        except HTTPError as error:
            raise_if_refused(error)
            raise


class VerifiedFile(Record):
    """The record beside a verified file: its SHA-256, size and time of change."""

    sha256: str
    size_and_time: tuple[int, int]
    """In bytes, and of its last change in nanoseconds."""


def verified_digest(path: Path) -> str | None:
    """The recorded SHA-256 of a file that was verified and has not changed since; else None."""
    try:
        record = read_record(VerifiedFile, path.with_suffix(".json"))
        stat = path.stat()
    except (OSError, ModelError):
        return None
    return record.sha256 if (stat.st_size, stat.st_mtime_ns) == record.size_and_time else None


def _record_digest(path: Path, digest: str) -> None:
    """Write the digest of a verified file beside it."""
    stat = path.stat()
    record = VerifiedFile(sha256=digest, size_and_time=(stat.st_size, stat.st_mtime_ns))
    write_atomic(path.with_suffix(".json"), record.model_dump_json().encode())


def _remove(path: Path) -> None:
    """Remove a file and the records beside it."""
    for file in (path, path.with_suffix(".json"), path.with_name(f"{path.name}.kaggle-partial")):
        file.unlink(missing_ok=True)
