"""What Kaggle's answers mean: wait, or say to the user what to do."""

from pcam_model.core.errors import SourceError
from pcam_model.data.http_download import LONGEST_WAIT, backoff, retry_after

COMPETITION = "histopathologic-cancer-detection"
RULES = f"https://www.kaggle.com/competitions/{COMPETITION}/rules"


def verdict(error: Exception, attempt: int) -> float:
    """The seconds to wait before the next attempt. Raises SourceError where waiting is of no use."""
    response = getattr(error, "response", None)
    status = response.status_code if response is not None else None
    if status in (401, 403, 404):
        raise refused(status) from error
    if status is not None and status not in (408, 429) and status < 500:
        raise SourceError(
            f"Kaggle answered {status} to the download of {COMPETITION} ({error}); try again later"
        ) from error
    asked = retry_after(response.headers) if response is not None else None
    return backoff(attempt) if asked is None else min(asked, LONGEST_WAIT)


def refused(status: int, what: str = f"the download of {COMPETITION}") -> SourceError:
    """What a refusal of `what` means, and where to mend it."""
    if status == 401:
        return SourceError(
            "Kaggle does not accept the credentials it was given (401): KAGGLE_API_TOKEN, KAGGLE_USERNAME and "
            "KAGGLE_KEY, or kaggle.json, is mistyped or expired; make new ones at https://www.kaggle.com/settings"
        )
    if status == 403:
        return SourceError(
            f"Kaggle refuses {what} (403): the competition's rules are not accepted; accept "
            f"them once in the browser at {RULES}, with the same account, and run again"
        )
    return SourceError(f"Kaggle does not find the competition {COMPETITION} (404); has it been moved? See {RULES}")
