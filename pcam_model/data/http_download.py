"""Files from the web: gone on with where a download breaks off, waited for while a server is busy."""

import os
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.util import Retry, Timeout

from pcam_model.core.errors import SourceError, TransientError
from pcam_model.core.files import md5

ATTEMPTS = 8  # in a row that bring nothing
PIECE = 1 << 20
LONGEST_WAIT = 600.0
REDIRECTS_ONLY = Retry(10, connect=0, read=0, status=0, other=0, redirect=10, respect_retry_after_header=False)
Wait = Callable[[float], None]


def download(url: str, path: Path, sums: frozenset[str] = frozenset(), wait: Wait = time.sleep) -> bool:
    """Download a file, which appears at `path` whole and with one of these MD5s; False where the server has none.

    What another process left behind is gone on with where the sums can tell whether it fits.

    Raises:
        SourceError: the server refuses, or what it sends has another MD5, twice.
        TransientError: the server cannot be reached, or breaks off, after several attempts.
    """
    part = path.with_name(f"{path.name}.part")
    if not sums:
        part.unlink(missing_ok=True)
    for last in (False, True):
        if not arrived(url, part, wait):
            return False
        found = md5(part)
        if not sums or found in sums:
            os.replace(part, path)
            return True
        part.unlink()
        if last:
            raise SourceError(
                f"{url}: its MD5 is {found}, where {' or '.join(sorted(sums))} was published; this is another file, or "
                "it is damaged on the way; choose another address, or set source.verify_md5=false for files of your own"
            )
    raise AssertionError("unreachable")


def arrived(url: str, part: Path, wait: Wait) -> bool:
    """Fetch all of a file into `part`, in as many requests as it takes; False where there is none."""
    tag, trouble, failed = "", "", 0
    with urllib3.PoolManager(retries=REDIRECTS_ONLY, timeout=Timeout(connect=30, read=60)) as pool:
        while failed < ATTEMPTS:
            have, pause = size_of(part), None
            try:
                answer = pool.request("GET", url, headers=rest_of(have, tag), preload_content=False)
                with answer:
                    if answer.status in (200, 206):
                        tag = answer.headers.get("ETag", "")
                        save(answer, part, have)
                        return True
                    if answer.status == 404:
                        return False
                    trouble, pause = refusal(url, answer.status), retry_after(answer.headers)
                    if answer.status == 416:
                        part.unlink(missing_ok=True)
            except HTTPError as error:
                trouble = str(error)
            failed = 0 if size_of(part) > have else failed + 1
            wait(min(backoff(failed) if pause is None else pause, LONGEST_WAIT))
    raise TransientError(f"{url} cannot be reached, or breaks off, after {ATTEMPTS} attempts: {trouble}")


def save(answer: urllib3.BaseHTTPResponse, part: Path, have: int) -> None:
    """Append the rest that was asked for, or begin again where the server sends everything."""
    goes_on = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
    if answer.status == 206 and not goes_on:
        part.unlink(missing_ok=True)
        raise HTTPError(f"another part of the file came than the one from byte {have:,} on")
    with part.open("ab" if goes_on else "wb") as file:
        for piece in answer.stream(PIECE, decode_content=False):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def rest_of(have: int, tag: str) -> dict[str, str]:
    """The headers that ask for what is missing, if the file is still the one of this tag."""
    rest = {"Range": f"bytes={have}-"} if have else {}
    same = {"If-Range": tag} if have and tag and not tag.startswith("W/") else {}
    return {"Accept-Encoding": "identity", **rest, **same}


def refusal(url: str, status: int) -> str:
    """What a status says that may pass by itself. Raises SourceError for one that will not."""
    if status >= 500 or status in (408, 416, 429):
        return f"the server answers {status}"
    raise SourceError(f"{url}: the server refuses it ({status}); check the address, and whether it needs no login")


def backoff(attempt: int) -> float:
    """1, 2, 4 ... seconds, at most a minute."""
    return min(2.0**attempt, 60.0)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that a Retry-After header asks for: a number, or a date."""
    header = headers.get("Retry-After")
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def size_of(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    return path.stat().st_size if path.exists() else 0
