"""boto3's exceptions as the store's errors, each with what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from pcam_model.core.errors import StoreError
from pcam_model.registry.backends.base import NotFound, StoreUnavailable
from pcam_model.registry.backends.s3_client import NotS3Error
from pcam_model.registry.backends.s3_connection_errors import from_connection_error

BAD_CREDENTIALS = {
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "AuthFailure", "401"),
    *("TokenRefreshRequired", "RequestExpired", "UnrecognizedClientException", "InvalidClientTokenId"),
}
UNAVAILABLE = {
    *("SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "TooManyRequests", "Throttling"),
    *("ThrottlingException", "RequestLimitExceeded", "XMinioServerNotInitialized", "OperationAborted"),
    *("408", "429", "500", "502", "503", "504"),
}
FULL = {"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "507"}
MISSING_OBJECT = {"NoSuchKey", "404"}
REDIRECTS = {"301", "302", "303", "307", "308", "PermanentRedirect", "TemporaryRedirect", "Redirect"}
WRONG_REGION = {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "InvalidRegion", "400"}


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
    except (ResponseParserError, NotS3Error) as error:
        raise not_s3(endpoint) from error
    except BotoCoreError as error:
        raise from_connection_error(error, address, endpoint) from error


def not_s3(endpoint: str) -> StoreError:
    """The error for an answer without what every answer of S3 has: the page of a web console, or of a sign-in."""
    return StoreError(
        f"{endpoint} answers, but not as an S3 server does; check the host and port in AWS_ENDPOINT_URL_S3 (a web "
        "console has another port), and whether this network wants you to sign in first"
    )


def error_code(error: ClientError) -> str:
    """The server's code of an error, or the HTTP status where it gives none."""
    code = error.response.get("Error", {}).get("Code")
    return str(code or error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))


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
    if message := _settings_message(error, code, bucket, endpoint):
        return message
    if code in MISSING_OBJECT:
        problem = f"{endpoint} answers {code}, so it has no such bucket or does not speak S3"
        return f"{bucket}: {problem}; check both{_bucket_in_host(bucket, endpoint)}"
    if code in BAD_CREDENTIALS:
        return (
            f"{endpoint} does not accept the credentials ({code}); check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY "
            "and AWS_SESSION_TOKEN, or the profile in ~/.aws"
        )
    if code in FULL:
        return f"{bucket}: the store is full ({code}); make room there, then run again"
    match code:
        case "NoSuchBucket":
            hint = _bucket_in_host(bucket, endpoint)
            return f"{bucket}: {endpoint} has no such bucket; create it, or correct the address{hint}"
        case "407":
            return f"{endpoint}: the proxy wants a user name and a password; put them into HTTPS_PROXY or HTTP_PROXY"
        case "AccessDenied":
            return f"{address}: these credentials may not {action} there; ask the bucket's owner to allow it"
        case "403":
            return f"{address}: {endpoint} forbids to {action}; check AWS_ACCESS_KEY_ID and what it may do there"
    reason = error.response.get("Error", {}).get("Message") or "no reason given"
    return f"{address}: {endpoint} refuses to {action} ({code}: {reason}); check the address"


def _settings_message(error: ClientError, code: str, bucket: str, endpoint: str) -> str:
    """The message where clock, region or endpoint are wrong; else empty."""
    if code == "RequestTimeTooSkewed":
        return f"{endpoint} refuses this machine's clock, {_clock_skew(error)}; set the clock"
    region = _other_region(error)
    if region and code in WRONG_REGION | REDIRECTS:
        return f"{bucket}: its region is {region}, which the request does not name; set AWS_REGION={region}"
    if code in REDIRECTS:
        return (
            f"{bucket}: {endpoint} redirects elsewhere ({code}); check AWS_ENDPOINT_URL_S3 and AWS_REGION, and whether "
            "this network wants you to sign in first"
        )
    return ""


def _bucket_in_host(bucket: str, endpoint: str) -> str:
    """A hint where the endpoint holds the bucket's name already, as consoles show it."""
    name, host = bucket.removeprefix("s3://"), urlsplit(endpoint).hostname or ""
    return f" (AWS_ENDPOINT_URL_S3 names the server alone, without {name}.)" if host.startswith(f"{name}.") else ""


def _other_region(error: ClientError) -> str:
    """The region that the server expects, where it says so."""
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return str(error.response.get("Error", {}).get("Region") or headers.get("x-amz-bucket-region") or "")


def _clock_skew(error: ClientError) -> str:
    stamp = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    if not stamp:
        return "which is wrong"
    behind = (parsedate_to_datetime(stamp) - datetime.now(UTC)).total_seconds()
    return f"which is {abs(behind) / 60:,.0f} minutes {'behind' if behind > 0 else 'ahead of'} its own"
