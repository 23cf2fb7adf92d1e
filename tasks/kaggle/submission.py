"""A submission to the competition, by Kaggle's own client, and the scores that come back."""

import contextlib
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pcam_model.core.errors import SubmissionError
from pcam_model.core.schema import Record
from tasks.kaggle.answers import COMPETITION, refused
from tasks.kaggle.session import signed_in

SUBMISSIONS = f"https://www.kaggle.com/competitions/{COMPETITION}/submissions"
HEADER = "id,label"
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 30.0


class Submission(Record):
    """What Kaggle says of a submission."""

    ref: int
    """Kaggle's number of it."""
    message: str
    """What the submission is called there."""
    said: str
    """Kaggle's answer to it."""
    scored: bool = False
    public: float | None = None
    """AUC on the part of the test patches whose scores are shown to all."""
    private: float | None = None
    """AUC on the others; Kaggle tells it once the competition is over."""


def submit(
    path: Path, message: str, *, timeout: float = 600.0, wait: Callable[[float], None] = time.sleep
) -> Submission:
    """Send a file of predictions, and wait for its scores; what still has none after `patience` seconds says so.

    Raises:
        SourceError: no credentials, or Kaggle refuses them or the account.
        NotSubmitted: no such file, Kaggle does not take it or cannot score it, or cannot be reached.
    """
    _refuse_other(path)
    api = signed_in()
    with _in_one_sentence("Nothing was submitted"), contextlib.redirect_stdout(io.StringIO()) as trouble:
        answer = api.competition_submit(str(path), message, COMPETITION, quiet=True)
        if answer.message == api.COMPETITION_SUBMIT_UPLOAD_FAILED_MESSAGE:
            reason = " ".join(trouble.getvalue().split()) or "the upload broke off"
            raise SubmissionError(f"Kaggle did not take the file {path.name} ({reason[:200]}); submit again later")
    sent = Submission(ref=answer.ref, message=message, said=answer.message)
    return _scored(api, sent, timeout, wait)


def _refuse_other(path: Path) -> None:
    """A submission is Kaggle's form; what is none is not sent."""
    if not path.is_file():
        raise SubmissionError(
            f"{path.parent} has no {path.name}: the source of this run had no unlabelled test patches (source.max_patches "
            "leaves them out too); train on the whole competition's archive"
        )
    with path.open() as file:
        first = file.readline().strip()
    if first != HEADER:
        raise SubmissionError(f"{path} starts with {first[:60]!r}, expected {HEADER}; score the model again")


def _scored(api: Any, sent: Submission, timeout: float, wait: Callable[[float], None]) -> Submission:
    pause, waited = FIRST_PAUSE, 0.0
    while True:
        with _in_one_sentence(f"The file was submitted ({SUBMISSIONS}), but its score could not be asked for"):
            found = next((each for each in api.competition_submissions(COMPETITION) if each.ref == sent.ref), None)
        status = found.status.name if found else "PENDING"
        if found and status == "ERROR":
            raise SubmissionError(
                f"Kaggle could not score the submission ({found.error_description or 'no reason was given'}); "
                f"see {SUBMISSIONS}"
            )
        if found and status == "COMPLETE":
            public, private = _number(found.public_score), _number(found.private_score)
            return sent.model_copy(update={"scored": True, "public": public, "private": private})
        if waited >= timeout:
            return sent
        wait(pause)
        waited, pause = waited + pause, min(2 * pause, LONGEST_PAUSE)


def _number(score: str | None) -> float | None:
    return float(score) if score else None


@contextlib.contextmanager
def _in_one_sentence(so_far: str) -> Iterator[None]:
    from requests import RequestException

    try:
        yield
    except RequestException as error:
        status = error.response.status_code if error.response is not None else None
        if status in (401, 403, 404):
            raise refused(status, f"a submission to {COMPETITION}") from error
        if status == 400:
            raise SubmissionError(f"{so_far}: Kaggle refuses it ({_reason(error)}); see {SUBMISSIONS}") from error
        what = f"Kaggle answered {status}" if status else "Kaggle cannot be reached"
        raise SubmissionError(f"{so_far}: {what} ({_reason(error)}); submit again later") from error


def _reason(error: Exception) -> str:
    """Kaggle's own words, where it gives any, such as a deadline that has passed or too many submissions a day."""
    response = getattr(error, "response", None)
    try:
        said = response.json().get("message") if response is not None else None
    except (ValueError, AttributeError):
        said = None
    return " ".join(str(said or error).split())[:200]
