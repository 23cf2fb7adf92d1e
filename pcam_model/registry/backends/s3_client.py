"""One boto3 client per process and environment: making one takes longer than most requests."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from pcam_model.core.errors import StoreError

MAX_CONCURRENCY = 6
CONNECT_TIMEOUT_S = 15  # also the longest that a server may pause while it receives an upload
READ_TIMEOUT_S = 30
TOKEN_FILES = ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
WEB_PAGE = (b"<html", b"<!doc")
WITH_ETAG = {"GetObject", "HeadObject", "PutObject", "UploadPart"}
WITH_BODY = {"CreateMultipartUpload", "CompleteMultipartUpload", "ListMultipartUploads", "ListObjectsV2"}


def s3_client(uri: str) -> Any:
    """A boto3 client for S3 from boto3's own settings, shared by all threads of the process.

    Args:
        uri: the store's address, for the error message.

    Raises:
        StoreError: boto3 refuses the settings, one has a line end that came with it from a file, or names no file.
    """
    for name, value in os.environ.items():
        if name.startswith("AWS_") and (value != value.strip() or not value.isprintable()):
            raise StoreError(f"{uri}: {name} begins or ends with a blank or a line end, or holds one; set it without")
    for name in TOKEN_FILES:
        if (path := os.environ.get(name)) and not Path(path).exists():
            raise StoreError(f"{uri}: {name} names {path}, which is not there; correct or unset it")
    settings = tuple(
        sorted(item for item in os.environ.items() if item[0].startswith("AWS_") or item[0].lower().endswith("_proxy"))
    )
    try:
        return _cached_client(os.getpid(), hash(settings))
    except (BotoCoreError, ValueError) as error:
        hint = ", with http:// or https:// before an endpoint" if "endpoint" in str(error) else ""
        raise StoreError(f"{uri}: boto3 refuses the AWS settings ({error}); correct them{hint}") from error


@lru_cache(maxsize=4)
def _cached_client(process: int, settings: int) -> Any:  # noqa: ARG001 (the key of the cache)
    session = boto3.Session()
    client = session.client("s3", config=_client_config("auto"))
    if not _is_amazon(client.meta.endpoint_url):
        client = session.client("s3", region_name=session.region_name or "us-east-1", config=_client_config("path"))
        client.meta.events.register_first("needs-retry.s3", _refuse_redirect)
    client.meta.events.register_first("needs-retry.s3", _refuse_web_page)
    return client


class NotS3Error(BotoCoreError):  # type: ignore[misc]  # boto3 has no types
    """A server's answer has not what every answer of S3 has."""

    fmt = "the answer is not one of S3"


def _refuse_web_page(response: tuple[Any, dict[str, Any]] | None, operation: Any, **_: Any) -> None:
    """Raise NotS3Error for a success without an etag: boto3 takes a page for an upload's answer, or asks again."""
    if response is None or not 200 <= response[0].raw.status < 300 or "ETag" in response[0].headers:
        return  # raw: boto3 has made 500 of the status of a page that is no XML
    is_page = operation.name in WITH_ETAG or response[0].content.lstrip()[:5].lower() in WEB_PAGE
    if is_page or (operation.name in WITH_BODY and not response[0].content):
        response[0].raw.close()
        raise NotS3Error


def _refuse_redirect(response: tuple[Any, dict[str, Any]] | None, operation: Any, **_: Any) -> None:
    """Raise the redirect of a server: boto3 takes it for another region of Amazon's, and asks again without end."""
    if response is not None and 300 <= response[0].status_code < 400 and response[0].status_code != 304:
        raise ClientError(response[1], operation.name)


def _is_amazon(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


def _client_config(addressing_style: str) -> Config:
    """The client's settings; the manifest has digests, so a server's checksums are only sent where it requires them."""
    return Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"mode": "standard"},  # 3 tries, or AWS_MAX_ATTEMPTS
        max_pool_connections=2 * MAX_CONCURRENCY,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": addressing_style},
    )
