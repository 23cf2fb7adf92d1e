"""Errors of Kaggle's client, as waits or as sentences for the user."""

from pcam_model.core.errors import SourceError
from pcam_model.data.http_download import MAX_WAIT_S, backoff, retry_after

COMPETITION = "histopathologic-cancer-detection"
RULES_URL = f"https://www.kaggle.com/competitions/{COMPETITION}/rules"
REFUSALS = (401, 403, 404)


def status_of(error: BaseException) -> int | None:
    """The HTTP status of an error of requests; None where there was no answer."""
    response = getattr(error, "response", None)
    return None if response is None else int(response.status_code)


def raise_if_refused(error: BaseException) -> None:
    """Raise a SourceError where trying the download again is of no use."""
    status = status_of(error)
    if status in REFUSALS:
        raise refusal(status) from error
    if status is not None and status not in (408, 429) and status < 500:
        raise SourceError(
            f"Kaggle answers {status} to the download of {COMPETITION} ({error}); try again later"
        ) from error


def wait_s(error: BaseException, attempts: int) -> float:
    """Seconds to wait after so many failed attempts: what Kaggle's Retry-After says, else exponentially more."""
    response = getattr(error, "response", None)
    requested = None if response is None else retry_after(response.headers)
    return backoff(attempts - 1) if requested is None else min(requested, MAX_WAIT_S)


def refusal(status: int, action: str = f"the download of {COMPETITION}") -> SourceError:
    """The error for a status of `REFUSALS`: what it means, and what to do.

    Args:
        status: 401, 403 or 404.
        action: what Kaggle refuses, as in "the download of ...".
    """
    if status == 401:
        return SourceError(
            "Kaggle does not accept the credentials (401): KAGGLE_API_TOKEN, KAGGLE_USERNAME and KAGGLE_KEY, or "
            "kaggle.json, is mistyped or expired; make new ones at https://www.kaggle.com/settings"
        )
    if status == 403:
        return SourceError(
            f"Kaggle refuses {action} (403): the competition's rules are not accepted; accept them once in the browser "
            f"at {RULES_URL}, with the same account, and run again"
        )
    return SourceError(
        f"Kaggle does not find the competition {COMPETITION} (404); see whether {RULES_URL} still exists"
    )
