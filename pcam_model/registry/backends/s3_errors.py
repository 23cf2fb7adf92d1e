"""What went wrong with an S3 server, as one sentence that says what to do."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from boto3.exceptions import S3UploadFailedError
from botocore import exceptions as faults
from botocore.exceptions import BotoCoreError, ClientError

from pcam_model.core.errors import StoreError
from pcam_model.registry.backends.base import NotFound, StoreUnavailable

WRONG_KEYS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "AuthFailure"}
AWAY = {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "500", "502", "503", "504"}
FULL = {"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "507"}
MISSING = {"NoSuchKey", "404"}
NOISE = re.compile(r"^.*<[^>]* object at 0x[^>]*>:? ?|AWSHTTPS?Connection\([^)]*\): |\(_ssl\.c:\d+\)")
NO_CREDENTIALS = (faults.NoCredentialsError, faults.PartialCredentialsError, faults.CredentialRetrievalError)


@contextmanager
def speaking(place: str, endpoint: str, doing: str) -> Iterator[None]:
    """Turn boto3's exceptions into the registry's own.

    Args:
        place: The bucket or object, as the user would name it.
        endpoint: The server's address.
        doing: What was tried, as in `read`.
    """
    try:
        yield
    except ClientError as error:
        raise _refusal(error, place, endpoint, doing) from error
    except S3UploadFailedError as error:
        if isinstance(error.__context__, ClientError):
            raise _refusal(error.__context__, place, endpoint, doing) from error
        raise StoreError(f"{place}: could not {doing} ({error}); run again") from error
    except BotoCoreError as error:
        raise _failure(error, place, endpoint) from error


def code_of(error: ClientError) -> str:
    """The server's code of an error, or the HTTP status where it gives none."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _refusal(error: ClientError, place: str, endpoint: str, doing: str) -> StoreError:
    code, bucket = code_of(error), "/".join(place.split("/")[:3])
    if code in MISSING and doing == "list":
        return StoreError(f"{bucket}: {endpoint} answers {code}, so it has no such bucket or speaks no S3; check both")
    if code in MISSING:
        return NotFound(f"{place} is not there; look at what is with `pcam runs`")
    if code in AWAY:
        return StoreUnavailable(
            f"{endpoint} is overloaded or out of order ({code}) while trying to {doing}; run again later"
        )
    sentences: dict[str, Callable[[], str]] = {
        "NoSuchBucket": lambda: f"{bucket}: {endpoint} has no such bucket; make it, or mend the store's address",
        "RequestTimeTooSkewed": lambda: f"{endpoint} refuses this machine's clock, {_skew(error)}; set the clock",
        "AccessDenied": lambda: f"{place}: these credentials may not {doing} there; ask the bucket's owner to allow it",
        "403": lambda: f"{place}: {endpoint} forbids to {doing}; check AWS_ACCESS_KEY_ID and what it may do there",
    }
    if code in WRONG_KEYS:
        return StoreError(
            f"{endpoint} does not accept the credentials ({code}); check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY "
            "and AWS_SESSION_TOKEN, or the profile in ~/.aws"
        )
    if code in FULL:
        return StoreError(f"{bucket}: the store is full ({code}); make room there, then run again")
    if code in sentences:
        return StoreError(sentences[code]())
    reason = error.response.get("Error", {}).get("Message") or "no reason given"
    return StoreError(f"{place}: {endpoint} refuses to {doing} ({code}: {reason}); check the store's address")


def _failure(error: BotoCoreError, place: str, endpoint: str) -> StoreError:
    if isinstance(error, NO_CREDENTIALS):
        return StoreError(
            f"{place}: no complete credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    if isinstance(error, faults.SSLError):
        return StoreError(
            f"{endpoint}: its certificate is not trusted ({_short(error)}); name its authority's file in AWS_CA_BUNDLE"
        )
    if isinstance(error, faults.ProxyConnectionError):
        return StoreUnavailable(f"{endpoint}: the proxy does not answer; check HTTPS_PROXY, HTTP_PROXY and NO_PROXY")
    if isinstance(error, faults.ConnectionError | faults.HTTPClientError | faults.IncompleteReadError):
        return StoreUnavailable(
            f"{endpoint} does not answer ({_short(error)}); check AWS_ENDPOINT_URL_S3 and that the server is up"
        )
    return StoreError(f"{place}: {_short(error)}; check the store's address and the AWS settings")


def _short(error: Exception) -> str:
    """What lies at the bottom of it, without the names of objects in memory."""
    inner: Any = getattr(error, "kwargs", {}).get("error") or error
    while isinstance(getattr(inner, "reason", None), BaseException):
        inner = inner.reason
    return NOISE.sub("", str(inner).splitlines()[0]).strip()


def _skew(error: ClientError) -> str:
    stamp = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    if not stamp:
        return "which is wrong"
    behind = (parsedate_to_datetime(stamp) - datetime.now(UTC)).total_seconds()
    return f"which is {abs(behind) / 60:,.0f} minutes {'behind' if behind > 0 else 'ahead of'} its own"
