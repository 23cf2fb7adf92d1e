"""What boto3 raises where a server gives no answer of S3's, as the store's errors, each with what to do."""

import re
import ssl
from collections.abc import Iterator
from http.client import BadStatusLine, RemoteDisconnected

from botocore import exceptions as boto_errors
from botocore.exceptions import BotoCoreError

from pcam_model.core.errors import StoreError
from pcam_model.registry.backends.base import StoreUnavailable

OBJECT_NAMES = re.compile(r"^.*<[^>]* object at 0x[^>]*>:? ?|AWSHTTPS?Connection\([^)]*\): |\(_ssl\.c:\d+\)")
NO_CREDENTIALS = (
    boto_errors.NoCredentialsError,
    boto_errors.PartialCredentialsError,
    boto_errors.CredentialRetrievalError,
)
NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL")
OTHER_NAME = ("subjectAltName", "doesn't match", "Hostname mismatch", "IP address mismatch")


def from_connection_error(error: BotoCoreError, address: str, endpoint: str) -> StoreError:
    """The store's error for one of boto3's own; `StoreUnavailable` for what may pass by itself."""
    if isinstance(error, NO_CREDENTIALS):
        return StoreError(
            f"{address}: no complete credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    if isinstance(error, boto_errors.SSLError):
        return _from_tls_error(error, endpoint)
    if isinstance(error, boto_errors.ProxyConnectionError):
        return StoreUnavailable(f"{endpoint}: the proxy does not answer; check HTTPS_PROXY, HTTP_PROXY and NO_PROXY")
    if "Invalid header value" in str(error):  # it holds the key's id and a signature
        return StoreError(
            f"{address}: the credentials hold a line end or another character that no key has; set AWS_ACCESS_KEY_ID "
            "and AWS_SESSION_TOKEN anew"
        )
    if any(isinstance(cause, BadStatusLine) and not isinstance(cause, RemoteDisconnected) for cause in _causes(error)):
        return StoreError(f"{endpoint} answers, but not in HTTP; check the port in AWS_ENDPOINT_URL_S3")
    if isinstance(error, boto_errors.ConnectionError | boto_errors.HTTPClientError | boto_errors.IncompleteReadError):
        return StoreUnavailable(
            f"{endpoint} does not answer ({root_message(error)}); check AWS_ENDPOINT_URL_S3, that it begins with "
            "http:// or https:// as the server wants it, and that the server is up"
        )
    return StoreError(f"{address}: {root_message(error)}; check the address and the AWS settings")


def _from_tls_error(error: BotoCoreError, endpoint: str) -> StoreError:
    message = root_message(error)
    if any(word in message for word in NO_TLS):
        return StoreError(
            f"{endpoint}: the server speaks plain HTTP there, no TLS ({message}); write http:// in "
            "AWS_ENDPOINT_URL_S3, or give the port for https"
        )
    if any(word in message for word in OTHER_NAME):
        return StoreError(
            f"{endpoint}: its certificate is for another name ({message}); use the name that the certificate has in "
            "AWS_ENDPOINT_URL_S3"
        )
    if "has expired" in message or "not yet valid" in message:
        return StoreError(
            f"{endpoint}: its certificate is not valid now ({message}); check this machine's clock, or have the "
            "certificate renewed"
        )
    if any(isinstance(cause, FileNotFoundError) for cause in _causes(error)) or "No such file" in message:
        return StoreError(f"{endpoint}: AWS_CA_BUNDLE names a file that does not exist; correct it")
    is_broken = any(isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError) for cause in _causes(error))
    if is_broken or "EOF" in message:
        return StoreUnavailable(
            f"{endpoint} breaks off the TLS handshake ({message}); check AWS_ENDPOINT_URL_S3 and that the server is up"
        )
    return StoreError(
        f"{endpoint}: its certificate is not trusted ({message}); set AWS_CA_BUNDLE to the file of its certificate "
        "authority"
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, those that it wraps in its own ways, and so on."""
    yield error
    wrapped = [getattr(error, "kwargs", {}).get("error"), getattr(error, "reason", None), *error.args]
    for inner in wrapped:
        if isinstance(inner, BaseException) and inner is not error:
            yield from _causes(inner)


def root_message(error: BaseException) -> str:
    """The message of the innermost error, without the names of objects in memory."""
    inner = error
    for cause in _causes(error):
        inner = cause
    text = " ".join(str(inner).split()) or type(inner).__name__
    return OBJECT_NAMES.sub("", text).strip()
