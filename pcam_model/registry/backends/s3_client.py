"""One boto3 client per process and environment: making one takes longer than most requests."""

import os
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from pcam_model.core.errors import StoreError

MAX_CONCURRENCY = 6
CONNECT_TIMEOUT_S = 15  # also the longest that a server may pause while it receives an upload
READ_TIMEOUT_S = 30


def s3_client(uri: str) -> Any:
    """A boto3 client for S3 from boto3's own settings, shared by all threads of the process.

    Args:
        uri: the store's address, for the error message.

    Raises:
        StoreError: boto3 refuses the settings.
    """
    settings = tuple(
        sorted(item for item in os.environ.items() if item[0].startswith("AWS_") or item[0].lower().endswith("_proxy"))
    )
    try:
        return _cached_client(os.getpid(), hash(settings))
    except (BotoCoreError, ValueError) as error:
        raise StoreError(f"{uri}: boto3 refuses the AWS settings ({error}); correct them and run again") from error


@lru_cache(maxsize=4)
def _cached_client(process: int, settings: int) -> Any:  # noqa: ARG001 (the key of the cache)
    session = boto3.Session()
    client = session.client("s3", config=_client_config("auto"))
    if _is_amazon(client.meta.endpoint_url):
        return client
    return session.client("s3", region_name=session.region_name or "us-east-1", config=_client_config("path"))


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
