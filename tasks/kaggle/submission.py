"""Submissions to the competition by Kaggle's own client, and their scores."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pcam_model.core import retry
from pcam_model.core.errors import SubmissionError
from pcam_model.core.schema import Record
from tasks.kaggle.errors import COMPETITION, REFUSALS, refusal, status_of
from tasks.kaggle.session import sign_in

SUBMISSIONS_URL = f"https://www.kaggle.com/competitions/{COMPETITION}/submissions"
HEADER = "id,label"
FIRST_WAIT_S, MAX_WAIT_S = 2.0, 30.0


class Submission(Record):
    """A submission, and its scores once Kaggle has them."""

    ref: int
    """Kaggle's number of it."""
    message: str
    """Its description on Kaggle."""
    answer: str
    """Kaggle's answer to the upload."""
    scored: bool = False
    public: float | None = None
    """AUC on the test patches of the public leaderboard."""
    private: float | None = None
    """AUC on the other test patches, which Kaggle shows when the competition is over."""


def submit(path: Path, message: str, *, timeout: float = 600.0) -> Submission:
    """Upload a file of predictions and wait for its scores; after `timeout` seconds it is returned without.

    Raises:
        SourceError: there are no credentials, or Kaggle refuses them or the account.
        SubmissionError: there is no such file, or Kaggle does not take it, cannot score it or cannot be reached.
    """
    _check_format(path)
    api = sign_in()
    with _submission_errors("Nothing was submitted"), contextlib.redirect_stdout(io.StringIO()) as output:
        response = api.competition_submit(str(path), message, COMPETITION, quiet=True)
        if response.message == api.COMPETITION_SUBMIT_UPLOAD_FAILED_MESSAGE:
            reason = " ".join(output.getvalue().split()) or "the upload broke off"
            raise SubmissionError(f"Kaggle did not take the file {path.name} ({reason[:200]}); submit again later")
    return _wait_for_scores(api, Submission(ref=response.ref, message=message, answer=response.message), timeout)


def _check_format(path: Path) -> None:
    """Raise SubmissionError where the file is missing, or is no submission."""
    if not path.is_file():
        raise SubmissionError(
            f"{path.parent} has no {path.name}: the source of this run had no unlabelled test patches "
            "(source.max_patches leaves them out too); train on the whole archive of the competition"
        )
    with path.open() as file:
        first = file.readline().strip()
    if first != HEADER:
        raise SubmissionError(f"{path} starts with {first[:60]!r}, expected {HEADER}; score the model again")


def _wait_for_scores(api: Any, submission: Submission, timeout: float) -> Submission:
    """Poll Kaggle until it has scored the submission."""
    wait_s, waited_s = FIRST_WAIT_S, 0.0
    while True:
        with _submission_errors(f"The file was submitted ({SUBMISSIONS_URL}), but its score could not be requested"):
            listed = next(
                (each for each in api.competition_submissions(COMPETITION) if each.ref == submission.ref), None
            )
        status = listed.status.name if listed else "PENDING"
        if listed and status == "ERROR":
            reason = listed.error_description or "no reason was given"
            raise SubmissionError(f"Kaggle could not score the submission ({reason}); see {SUBMISSIONS_URL}")
        if listed and status == "COMPLETE":
            scores = {"public": _score(listed.public_score), "private": _score(listed.private_score)}
            return submission.model_copy(update={"scored": True, **scores})
        if waited_s >= timeout:
            return submission
        retry.CLOCK.sleep(wait_s)
        waited_s, wait_s = waited_s + wait_s, min(2 * wait_s, MAX_WAIT_S)


def _score(text: str | None) -> float | None:
    return float(text) if text else None


@contextlib.contextmanager
def _submission_errors(consequence: str) -> Iterator[None]:
    """Turn errors of requests in the block into a sentence that begins with their consequence."""
    from requests import RequestException

    try:
        yield
    except RequestException as error:
        status, reason = status_of(error), _reason(error)
        if status in REFUSALS:
            raise refusal(status, f"a submission to {COMPETITION}") from error
        if status == 400:
            raise SubmissionError(f"{consequence}: Kaggle refuses it ({reason}); see {SUBMISSIONS_URL}") from error
        what = f"Kaggle answers {status}" if status else "Kaggle cannot be reached"
        raise SubmissionError(f"{consequence}: {what} ({reason}); submit again later") from error


def _reason(error: Exception) -> str:
    """Kaggle's message, as of a deadline that has passed or of too many submissions a day; else the error's own."""
    response = getattr(error, "response", None)
    try:
        message = response.json().get("message") if response is not None else None
    except (ValueError, AttributeError):
        message = None
    return " ".join(str(message or error).split())[:200]
