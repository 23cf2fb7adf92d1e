"""The store in a bucket of any S3-compatible server, through boto3."""

import base64
import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from pcam_model.core.concurrency import ordered_prefetch
from pcam_model.core.errors import StoreError
from pcam_model.core.files import md5, save_blocks, sha256
from pcam_model.core.log import log
from pcam_model.core.retry import retry_call
from pcam_model.registry.backends.base import (
    MAX_READ_BYTES,
    Conflict,
    Entry,
    StoreUnavailable,
    too_large,
    validate_key,
)
from pcam_model.registry.backends.s3_client import MAX_CONCURRENCY, s3_client
from pcam_model.registry.backends.s3_errors import MISSING_OBJECT, error_code, not_s3, translate_errors

BLOCK_BYTES = 8 << 20
MULTIPART_BYTES = 8 << 20
READ_ATTEMPTS = 4
UPLOAD_S = 86_400.0  # after which an upload in parts that is not finished has broken off
TRANSFER = TransferConfig(
    multipart_threshold=MULTIPART_BYTES, multipart_chunksize=MULTIPART_BYTES, max_concurrency=MAX_CONCURRENCY
)
LISTING_FIELDS = {"Name", "IsTruncated", "KeyCount", "MaxKeys", "Contents", "CommonPrefixes"}
FAILED_CONDITION = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}


class S3Store:
    """A store in a bucket, or under a prefix of it."""

    def __init__(self, bucket: str, prefix: str = "") -> None:
        """`prefix` has no slash at either end. Credentials and endpoint come from boto3's own settings."""
        self.bucket = bucket
        self.prefix = f"{prefix}/" if prefix else ""
        self.client = s3_client(self.uri)

    @property
    def uri(self) -> str:
        """The address as `s3://bucket/prefix`."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def read(self, key: str) -> bytes:
        """See `Store.read`."""
        return self.get(key)[0]

    def get(self, key: str) -> tuple[bytes, str]:
        """See `Store.get`."""
        return self._get_object(key)

    def blocks(self, key: str, start: int = 0) -> Iterator[bytes]:
        """See `Store.blocks`; blocks are fetched ahead by threads, all of one version of the object."""
        with self._translate_errors(key, "read"):
            head = self.client.head_object(**self._address(key))

        def fetch(offset: int) -> bytes:
            byte_range = f"bytes={offset}-{offset + BLOCK_BYTES - 1}"
            return self._get_object(key, Range=byte_range, IfMatch=f'"{etag}"')[0]

        etag, offsets = self._etag(head), range(start, head["ContentLength"], BLOCK_BYTES)
        yield from ordered_prefetch(fetch, offsets, MAX_CONCURRENCY, MAX_CONCURRENCY + 1)

    def write(self, key: str, content: bytes, *, only_if_absent: bool = False, only_if: str | None = None) -> str:
        """See `Store.write`; the server makes condition and write one step."""
        if only_if_absent:
            return self._put_object(key, content, IfNoneMatch="*")
        if only_if is None:
            return self._put_object(key, content)
        try:
            return self._put_object(key, content, IfMatch=f'"{only_if}"')
        except Conflict:
            # Ceph compares the quotes too: a refusal while the etag is the right one means that it wants none.
            current = self.stat(key)
            if current is None or current.etag != only_if:
                raise
            return self._put_object(key, content, IfMatch=only_if)

    def upload(self, key: str, path: Path) -> str:
        """See `Store.upload`; a large file is sent in parts by threads, while its digest is computed."""
        with ThreadPoolExecutor(1) as pool:
            digest = pool.submit(sha256, path)
            with self._translate_errors(key, "write"):
                address = self._address(key)
                self.client.upload_file(str(path), address["Bucket"], address["Key"], Config=TRANSFER)
            return digest.result()

    def matches(self, key: str, path: Path) -> bool:
        """See `Store.matches`; by the MD5 that servers use as the etag of objects without a key service."""
        current = self.stat(key)
        return current is not None and current.size == path.stat().st_size and current.etag == _expected_etag(path)

    def download(self, key: str, path: Path) -> str:
        """See `Store.download`."""
        return save_blocks(self.blocks(key), path)

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """See `Store.entries`."""
        for page in self._list_pages(prefix):
            for item in page.get("Contents", ()):
                key = item["Key"].removeprefix(self.prefix)
                if not key.endswith("/"):
                    yield Entry(key, item["Size"], item["ETag"].strip('"'), item["LastModified"].timestamp())

    def folders(self, prefix: str = "") -> Iterator[str]:
        """See `Store.folders`."""
        for page in self._list_pages(prefix, Delimiter="/"):
            for item in page.get("CommonPrefixes", ()):
                yield item["Prefix"].removeprefix(self.prefix + prefix).rstrip("/")

    def stat(self, key: str) -> Entry | None:
        """See `Store.stat`."""
        with self._translate_errors(key, "read"):
            try:
                head = self.client.head_object(**self._address(key))
            except ClientError as error:
                if error_code(error) in MISSING_OBJECT:
                    return None
                raise
        return Entry(key, head["ContentLength"], self._etag(head), head["LastModified"].timestamp())

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        with self._translate_errors(key, "delete"):
            self.client.delete_object(**self._address(key))

    def sweep(self, prefix: str) -> None:
        """See `Store.sweep`; uploads in parts that were begun a day ago are aborted, where the server lets them list.

        Their parts are in no listing of objects, and take room until then.
        """
        try:
            for upload in self._old_uploads(prefix):
                with self._translate_errors(upload["Key"], "delete"):
                    self.client.abort_multipart_upload(Bucket=self.bucket, **upload)
        except StoreUnavailable:
            raise
        except StoreError as error:  # a right that is needed for nothing else
            log.info("%s. Uploads that broke off are left to the server", error)

    def _old_uploads(self, prefix: str) -> list[dict[str, str]]:
        """Key and id of each unfinished upload in parts below a prefix that was begun at least a day ago."""
        with self._translate_errors(prefix, "list the unfinished uploads of"):
            pages = self.client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self.bucket, Prefix=self.prefix + prefix
            )
            uploads = [upload for page in pages for upload in page.get("Uploads", ())]
        latest = time.time() - UPLOAD_S
        return [
            {"Key": upload["Key"], "UploadId": upload["UploadId"]}
            for upload in uploads
            if upload["Key"].startswith(self.prefix + prefix) and upload["Initiated"].timestamp() <= latest
        ]

    def _address(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.prefix + validate_key(key)}

    def _translate_errors(self, key: str, action: str) -> AbstractContextManager[None]:
        return translate_errors(f"{self.uri}/{key}", self.client.meta.endpoint_url, action)

    def _get_object(self, key: str, **options: str) -> tuple[bytes, str]:
        """Content and etag; boto3 retries a request that fails, and this one whose answer breaks off."""

        def get() -> tuple[bytes, str]:
            with self._translate_errors(key, "read"):
                answer = self.client.get_object(**self._address(key), **options)
                return self._read_body(key, answer["Body"]), self._etag(answer)

        try:
            return retry_call(
                get,
                retry_on=lambda error: isinstance(error, StoreUnavailable),
                attempts=READ_ATTEMPTS,
                first_wait_s=0.0,
            )
        except StoreError as error:
            if _is_failed_condition(error):
                raise StoreError(f"{self.uri}/{key} was replaced while it was read; read it again") from error
            raise

    def _read_body(self, key: str, body: Any) -> bytes:
        """All of an answer's bytes; read to its end, where botocore compares them with the declared length."""
        content = bytearray()
        while block := body.read(BLOCK_BYTES):
            content += block
            if len(content) > MAX_READ_BYTES:
                body.close()
                raise too_large(f"{self.uri}/{key}")
        return bytes(content)

    def _put_object(self, key: str, content: bytes, **condition: str) -> str:
        digest = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
        try:
            with self._translate_errors(key, "write"):
                answer = self.client.put_object(**self._address(key), Body=content, ContentMD5=digest, **condition)
                return self._etag(answer)
        except StoreError as error:
            if not _is_failed_condition(error):
                raise
            raise Conflict(
                f"{self.uri}/{key} exists already or has changed, written by another process; read it and try again"
            ) from error

    def _list_pages(self, prefix: str, **options: str) -> Iterator[dict[str, Any]]:
        with self._translate_errors(prefix, "list"):
            paginator = self.client.get_paginator("list_objects_v2")
            for page in paginator.paginate(Bucket=self.bucket, Prefix=self.prefix + prefix, **options):
                if not LISTING_FIELDS & page.keys():
                    raise not_s3(self.client.meta.endpoint_url)
                yield page

    def _etag(self, answer: dict[str, Any]) -> str:
        if "ETag" not in answer:
            raise not_s3(self.client.meta.endpoint_url)
        return str(answer["ETag"]).strip('"')


def _is_failed_condition(error: StoreError) -> bool:
    cause = error.__cause__
    return isinstance(cause, ClientError) and error_code(cause) in FAILED_CONDITION


def _expected_etag(path: Path) -> str:
    """The etag that a server gives a file that `upload` sends: its MD5, or the MD5 of its parts' MD5s."""
    if path.stat().st_size < MULTIPART_BYTES:
        return md5(path)
    with path.open("rb") as file:
        blocks = iter(lambda: file.read(MULTIPART_BYTES), b"")
        digests = [hashlib.md5(block, usedforsecurity=False).digest() for block in blocks]
    return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"
