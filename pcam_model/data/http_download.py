"""HTTP downloads that resume where they break off, and wait while a server is busy."""

import os
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path

import urllib3
from urllib3.exceptions import HTTPError, MaxRetryError, ProxyError, ResponseError
from urllib3.util import Retry, Timeout

from pcam_model.core.errors import DiskFullError, SourceError, TransientError
from pcam_model.core.files import md5
from pcam_model.core.proxies import find_proxy, open_pool
from pcam_model.core.retry import retry_call
from pcam_model.core.write_guard import FULL, require_disk_space

MAX_FILE_BYTES = 1 << 34  # PCam's largest, unpacked, has 7.2e9 bytes
MAX_FAILURES = 8  # attempts in a row that bring no byte
BLOCK_BYTES = 1 << 20
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 30.0, 60.0
MAX_WAIT_S = 600.0
MAX_BACKOFF_S = 60.0
REDIRECTS_ONLY = Retry(10, connect=0, read=0, status=0, other=0, redirect=10, respect_retry_after_header=False)
PROXY_LOGIN = 407
RETRIED_STATUS = {408, 416, 429}  # and those of 500 and above


class BusyServerError(Exception):
    """The server answers with a status that may pass."""

    def __init__(self, status: int, retry_after_s: float | None) -> None:
        super().__init__(f"the server answers {status}")
        self.retry_after_s = retry_after_s


def download(url: str, path: Path, md5s: frozenset[str] = frozenset(), max_bytes: int = MAX_FILE_BYTES) -> bool:
    """Download a file to `path`, where it appears complete; False where the server does not have it (404).

    What an earlier process left in `<name>.part` is resumed where an MD5 can tell whether it belongs to the file.

    Args:
        url: the file's address.
        path: where it is put.
        md5s: the MD5s that it may have; any where there are none.
        max_bytes: the size that it may have.

    Raises:
        SourceError: the server refuses, or redirects to what is no web address, or what it sends is larger, or has
            another MD5, twice.
        DiskFullError: it does not fit on the disk; without MD5s, nothing is left.
        TransientError: the server cannot be reached, or breaks off, after several attempts.
    """
    part = path.with_name(f"{path.name}.part")
    if not md5s:
        part.unlink(missing_ok=True)
    for is_last in (False, True):
        try:
            if not _Transfer(url, part, max_bytes).run():
                return False
        except (OSError, DiskFullError) as error:
            is_full = isinstance(error, DiskFullError) or error.errno in FULL
            if is_full and not md5s:  # it could not be resumed
                part.unlink(missing_ok=True)
            raise
        actual = md5(part)
        if not md5s or actual in md5s:
            part.replace(path)
            return True
        part.unlink()
        if is_last:
            raise SourceError(
                f"{url}: its MD5 is {actual}, where {' or '.join(sorted(md5s))} was published; this is another file, "
                "or it is damaged on the way each time; check source.path, or set source.verify_md5=false for files of "
                "your own"
            )
    raise AssertionError("unreachable")


class TooLargeError(Exception):
    """The body of an answer is larger than the file may be."""


class _Transfer:
    """The requests that bring one file into `part`."""

    def __init__(self, url: str, part: Path, max_bytes: int) -> None:
        self.url, self.part, self.max_bytes = url, part, max_bytes
        self.proxy = find_proxy(url)
        self.etag = ""
        self.failures = 0

    def run(self) -> bool:
        """Request the file until it is complete; False where the server does not have it."""
        timeout = Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S)
        with open_pool(self.proxy, REDIRECTS_ONLY, timeout) as pool:
            try:
                return retry_call(lambda: self._attempt(pool), retry_on=self._may_pass, wait_s=self._wait_s)
            except (HTTPError, BusyServerError) as error:
                through = f" through the proxy of {self.proxy.variable}" if self.proxy else ""
                raise TransientError(
                    f"{self.url} cannot be reached{through}, or breaks off, after {MAX_FAILURES} attempts: {error}"
                ) from error

    def _attempt(self, pool: urllib3.PoolManager) -> bool:
        """One request for what is missing; counts failures since the last progress."""
        size = file_size(self.part)
        try:
            return self._request(pool, size)
        except (HTTPError, BusyServerError) as error:
            if self.proxy and is_proxy_login(error):
                raise SourceError(self._proxy_login_message()) from None
            self.failures = 0 if file_size(self.part) > size else self.failures + 1
            raise

    def _request(self, pool: urllib3.PoolManager, size: int) -> bool:
        with self._open(pool, range_headers(size, self.etag)) as response:
            if response.status in (200, 206):
                self.etag = response.headers.get("ETag", "")
                try:
                    append_body(response, self.part, size, self.max_bytes)
                except TooLargeError as error:
                    self.part.unlink(missing_ok=True)
                    raise SourceError(
                        f"{self.url}: {error}, expected {self.max_bytes:,} at most; this is another file; correct the "
                        "address"
                    ) from None
                return True
            if response.status == 404:
                return False
            if response.status == 416:
                self.part.unlink(missing_ok=True)
            if response.status == PROXY_LOGIN and self.proxy:
                raise SourceError(self._proxy_login_message())
            if response.status < 500 and response.status not in RETRIED_STATUS:
                raise SourceError(
                    f"{self.url}: the server refuses it ({response.status}); check the address, and that it needs no "
                    "login"
                )
            raise BusyServerError(response.status, retry_after(response.headers))

    def _proxy_login_message(self) -> str:
        variable = self.proxy.variable if self.proxy else ""
        return (
            f"{self.url}: the proxy of {variable} asks for a login ({PROXY_LOGIN}); write {variable} as "
            "http://user:password@host:port, special characters as %40"
        )

    def _open(self, pool: urllib3.PoolManager, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        """The answer, after redirects; SourceError where they lead nowhere, which does not pass."""
        try:
            return pool.request("GET", self.url, headers=headers, preload_content=False)
        except ValueError as error:
            reason = f"it is, or redirects to, what is no web address ({error})"
        except MaxRetryError as error:
            if not isinstance(error.reason, ResponseError):
                raise
            reason = f"the server redirects more than {REDIRECTS_ONLY.redirect} times"
        raise SourceError(f"{self.url}: {reason}; open it in a browser, and correct the address")

    def _may_pass(self, error: BaseException) -> bool:
        return isinstance(error, HTTPError | BusyServerError) and self.failures < MAX_FAILURES

    def _wait_s(self, error: BaseException, _: int) -> float:
        requested = error.retry_after_s if isinstance(error, BusyServerError) else None
        return min(backoff(self.failures) if requested is None else requested, MAX_WAIT_S)


def is_proxy_login(error: Exception) -> bool:
    """Whether a proxy has refused a connection without a login; urllib3 wraps its error in another."""
    return isinstance(getattr(error, "reason", error), ProxyError) and f" {PROXY_LOGIN} " in str(error)


def append_body(response: urllib3.BaseHTTPResponse, part: Path, size: int, max_bytes: int = MAX_FILE_BYTES) -> None:
    """Append the requested range, from byte `size` on, or start again where the server sends the whole file.

    Raises:
        TooLargeError: the file has more than `max_bytes`.
        DiskFullError: the disk has less room than the server's declared length.
    """
    is_range = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {size}-")
    if response.status == 206 and not is_range:
        part.unlink(missing_ok=True)
        raise HTTPError(f"the server sent another range than the one from byte {size:,} on")
    declared = int(length) if (length := response.headers.get("Content-Length", "")).isdecimal() else 0
    if declared + (size if is_range else 0) > max_bytes:
        raise TooLargeError(f"the server announces {declared:,} bytes")
    with part.open("ab" if is_range else "wb") as file:
        require_disk_space(part.parent, declared, "the download")
        for block in response.stream(BLOCK_BYTES, decode_content=False):
            file.write(block)
            if file.tell() > max_bytes:
                raise TooLargeError(f"the server sends more than {max_bytes:,} bytes without end")
        file.flush()
        os.fsync(file.fileno())


def range_headers(size: int, etag: str) -> dict[str, str]:
    """Request headers for the bytes from `size` on, of the file that has this ETag."""
    headers = {"Accept-Encoding": "identity"}
    if size:
        headers["Range"] = f"bytes={size}-"
    if size and etag and not etag.startswith("W/"):
        headers["If-Range"] = etag
    return headers


def backoff(attempt: int) -> float:
    """Seconds to wait after so many failed attempts: 1, 2, 4 ..., at most a minute."""
    return min(2.0**attempt, MAX_BACKOFF_S)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by a Retry-After header, a number or a date; None where there is none."""
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


def file_size(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    return path.stat().st_size if path.exists() else 0
