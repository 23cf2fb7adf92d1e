"""What Kaggle's answers mean: wait, or say to the user what to do."""

import time
from email.utils import parsedate_to_datetime

from pcam_model.errors import BadSource

COMPETITION = "histopathologic-cancer-detection"
RULES = f"https://www.kaggle.com/competitions/{COMPETITION}/rules"
LONGEST_WAIT = 600.0


def verdict(error: Exception, attempt: int) -> float:
    """The seconds to wait before the next attempt. Raises BadSource where waiting is of no use."""
    response = getattr(error, "response", None)
    status = response.status_code if response is not None else None
    if status in (401, 403, 404):
        raise refused(status) from error
    if status is not None and status not in (408, 429) and status < 500:
        raise BadSource(
            f"Kaggle answered {status} to the download of {COMPETITION} ({error}); try again later"
        ) from error
    asked = retry_after(response.headers.get("Retry-After")) if response is not None else None
    return backoff(attempt) if asked is None else min(asked, LONGEST_WAIT)


def refused(status: int) -> BadSource:
    """What a refusal means, and where to mend it."""
    if status == 401:
        return BadSource(
            "Kaggle does not accept the credentials it was given (401): KAGGLE_API_TOKEN, KAGGLE_USERNAME and "
            "KAGGLE_KEY, or kaggle.json, is mistyped or expired; make new ones at https://www.kaggle.com/settings"
        )
    if status == 403:
        return BadSource(
            f"Kaggle refuses the download of {COMPETITION} (403): the competition's rules are not accepted; accept "
            f"them once in the browser at {RULES}, with the same account, and run again"
        )
    return BadSource(f"Kaggle does not find the competition {COMPETITION} (404); has it been moved? See {RULES}")


def backoff(attempt: int) -> float:
    """1, 2, 4 ... seconds, at most a minute."""
    return min(2.0**attempt, 60.0)


def retry_after(header: str | None) -> float | None:
    """The seconds that a Retry-After header asks for: a number, or a date."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
