"""One boto3 client a process and environment: making one takes longer than most requests."""

import os
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from pcam_model.core.errors import StoreError

STREAMS = 6
BLOCK = 8 << 20


def client(place: str) -> Any:
    """A client for S3, from boto3's own chain of settings; shared, and safe to use from several threads."""
    settings = tuple(
        sorted(item for item in os.environ.items() if item[0].startswith("AWS_") or item[0].lower().endswith("_proxy"))
    )
    try:
        return _client(os.getpid(), hash(settings))
    except (BotoCoreError, ValueError) as error:
        raise StoreError(f"{place}: the AWS settings cannot be used ({error}); mend them") from error


@lru_cache(maxsize=4)
def _client(process: int, settings: int) -> Any:
    session = boto3.Session()
    made = session.client("s3", config=_config())
    if _is_amazon(made.meta.endpoint_url):
        return made
    return session.client("s3", region_name=session.region_name or "us-east-1", config=_config("path"))


def _is_amazon(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


def _config(addressing: str = "auto") -> Config:
    """Digests are ours, from the manifest: a server's checksums are only sent where it requires them."""
    return Config(
        connect_timeout=15,  # also the longest that a server may pause while it takes what is sent
        read_timeout=30,
        retries={"mode": "standard"},  # 3 tries, or AWS_MAX_ATTEMPTS
        max_pool_connections=2 * STREAMS,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": addressing},
    )
