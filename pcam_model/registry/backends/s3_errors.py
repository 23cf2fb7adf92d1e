"""boto3's exceptions as the store's errors, each with what to do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from boto3.exceptions import S3UploadFailedError
from botocore import exceptions as boto_errors
from botocore.exceptions import BotoCoreError, ClientError

from pcam_model.core.errors import StoreError
from pcam_model.registry.backends.base import NotFound, StoreUnavailable

BAD_CREDENTIALS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "AuthFailure"}
UNAVAILABLE = {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "500", "502", "503", "504"}
FULL = {"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "507"}
MISSING_OBJECT = {"NoSuchKey", "404"}
OBJECT_NAMES = re.compile(r"^.*<[^>]* object at 0x[^>]*>:? ?|AWSHTTPS?Connection\([^)]*\): |\(_ssl\.c:\d+\)")
NO_CREDENTIALS = (
    boto_errors.NoCredentialsError,
    boto_errors.PartialCredentialsError,
    boto_errors.CredentialRetrievalError,
)


@contextmanager
def translate_errors(address: str, endpoint: str, action: str) -> Iterator[None]:
    """Raise boto3's exceptions as `StoreError`, `StoreUnavailable` or `NotFound`.

    Args:
        address: the bucket or object, as `s3://bucket/key`.
        endpoint: the server's address.
        action: what the block does, as in `read`.
    """
    try:
        yield
    except ClientError as error:
        raise _from_client_error(error, address, endpoint, action) from error
    except S3UploadFailedError as error:
        if isinstance(error.__context__, ClientError):
            raise _from_client_error(error.__context__, address, endpoint, action) from error
        raise StoreError(f"{address}: could not {action} ({error}); run again") from error
    except BotoCoreError as error:
        raise _from_boto_error(error, address, endpoint) from error


def error_code(error: ClientError) -> str:
    """The server's code of an error, or the HTTP status where it gives none."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _from_client_error(error: ClientError, address: str, endpoint: str, action: str) -> StoreError:
    code, bucket = error_code(error), "/".join(address.split("/")[:3])
    if code in MISSING_OBJECT and action != "list":
        return NotFound(f"{address} does not exist; `pcam runs` lists the store's runs")
    if code in UNAVAILABLE:
        return StoreUnavailable(
            f"{endpoint} is overloaded or out of order ({code}) on trying to {action}; run again later"
        )
    return StoreError(_refusal_message(error, code, bucket, address, endpoint, action))


def _refusal_message(error: ClientError, code: str, bucket: str, address: str, endpoint: str, action: str) -> str:
    if code in MISSING_OBJECT:
        return f"{bucket}: {endpoint} answers {code}, so it has no such bucket or does not speak S3; check both"
    if code in BAD_CREDENTIALS:
        return (
            f"{endpoint} does not accept the credentials ({code}); check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY "
            "and AWS_SESSION_TOKEN, or the profile in ~/.aws"
        )
    if code in FULL:
        return f"{bucket}: the store is full ({code}); make room there, then run again"
    match code:
        case "NoSuchBucket":
            return f"{bucket}: {endpoint} has no such bucket; create it, or correct the store's address"
        case "RequestTimeTooSkewed":
            return f"{endpoint} refuses this machine's clock, {_clock_skew(error)}; set the clock"
        case "AccessDenied":
            return f"{address}: these credentials may not {action} there; ask the bucket's owner to allow it"
        case "403":
            return f"{address}: {endpoint} forbids to {action}; check AWS_ACCESS_KEY_ID and what it may do there"
    reason = error.response.get("Error", {}).get("Message") or "no reason given"
    return f"{address}: {endpoint} refuses to {action} ({code}: {reason}); check the store's address"


def _from_boto_error(error: BotoCoreError, address: str, endpoint: str) -> StoreError:
    if isinstance(error, NO_CREDENTIALS):
        return StoreError(
            f"{address}: no complete credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    if isinstance(error, boto_errors.SSLError):
        return StoreError(
            f"{endpoint}: its certificate is not trusted ({_root_message(error)}); set AWS_CA_BUNDLE to the file of "
            "its certificate authority"
        )
    if isinstance(error, boto_errors.ProxyConnectionError):
        return StoreUnavailable(f"{endpoint}: the proxy does not answer; check HTTPS_PROXY, HTTP_PROXY and NO_PROXY")
    if isinstance(error, boto_errors.ConnectionError | boto_errors.HTTPClientError | boto_errors.IncompleteReadError):
        return StoreUnavailable(
            f"{endpoint} does not answer ({_root_message(error)}); check AWS_ENDPOINT_URL_S3 and that the server is up"
        )
    return StoreError(f"{address}: {_root_message(error)}; check the store's address and the AWS settings")


def _root_message(error: Exception) -> str:
    """The message of the innermost error, without the names of objects in memory."""
    inner: Any = getattr(error, "kwargs", {}).get("error") or error
    while isinstance(getattr(inner, "reason", None), BaseException):
        inner = inner.reason
    return OBJECT_NAMES.sub("", str(inner).splitlines()[0]).strip()


def _clock_skew(error: ClientError) -> str:
    stamp = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    if not stamp:
        return "which is wrong"
    behind = (parsedate_to_datetime(stamp) - datetime.now(UTC)).total_seconds()
    return f"which is {abs(behind) / 60:,.0f} minutes {'behind' if behind > 0 else 'ahead of'} its own"
