"""A submission by Kaggle's real client to a stand-in of its server: the scores come back, or one sentence does."""

import json
from pathlib import Path

import pytest
from kaggle_standin import Standin

from pcam_model.core.errors import SourceError, SubmissionError
from tasks.kaggle.errors import COMPETITION
from tasks.kaggle.submission import submit

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
DONE = {"status": "COMPLETE", "publicScore": "0.9621", "privateScore": "0.9587"}
PENDING = {"status": "PENDING"}


@pytest.fixture
def content() -> bytes:
    """No archive is asked for here."""
    return b""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "submission.csv"
    path.write_text("id,label\na,0.25\nb,0.75\n")
    return path


@pytest.fixture(autouse=True)
def no_waiting(waits: list[float]) -> None:
    """No test waits."""


def test_both_scores_come_back_when_kaggle_has_them(
    signed_in: None, kaggle: Standin, file: Path, waits: list[float]
) -> None:
    kaggle.scores = [PENDING, PENDING, DONE]
    found = submit(file, "run first")
    assert (found.public, found.private, found.scored, found.ref) == (0.9621, 0.9587, True, 42)
    (sent,) = kaggle.submitted
    assert sent["content"] == file.read_bytes()
    assert sent["competitionName"] == COMPETITION
    assert sent["submissionDescription"] == "run first"
    assert sent["blobFileTokens"] == "a-token"
    assert waits == [2.0, 4.0]


def test_what_is_not_scored_in_time_is_not_lost(signed_in: None, kaggle: Standin, file: Path) -> None:
    kaggle.scores = [PENDING]
    found = submit(file, "m", timeout=10)
    assert not found.scored
    assert found.public is None
    assert found.ref == 42


def test_a_late_submission_may_have_a_private_score_only(signed_in: None, kaggle: Standin, file: Path) -> None:
    kaggle.scores = [{"status": "COMPLETE", "privateScore": "0.9", "publicScore": ""}]
    found = submit(file, "m")
    assert (found.public, found.private) == (None, 0.9)


@pytest.mark.parametrize(
    ("status", "body", "error", "message"),
    [
        (401, b"{}", SourceError, "does not accept the credentials"),
        (403, b"{}", SourceError, f"refuses a submission to {COMPETITION} .403.*rules are not accepted"),
        (404, b"{}", SourceError, "does not find the competition"),
        (
            400,
            json.dumps({"message": "The deadline has passed"}).encode(),
            SubmissionError,
            "refuses it .The deadline has",
        ),
        (503, b"busy", SubmissionError, "Nothing was submitted: Kaggle answers 503"),
    ],
)
def test_a_refusal_is_one_sentence(
    signed_in: None, kaggle: Standin, file: Path, status: int, body: bytes, error: type[Exception], message: str
) -> None:
    kaggle.answers, kaggle.refusal = [(status, {})] * 9, body
    with pytest.raises(error, match=message):
        submit(file, "m")
    assert kaggle.submitted == []


def test_an_upload_that_fails_and_a_score_that_cannot_be_made_are_said(
    signed_in: None, kaggle: Standin, file: Path
) -> None:
    kaggle.upload = 410
    with pytest.raises(SubmissionError, match=r"did not take the file submission.csv"):
        submit(file, "m")
    kaggle.upload, kaggle.scores = 200, [{"status": "ERROR", "errorDescription": "Missing ids"}]
    with pytest.raises(SubmissionError, match=r"could not score the submission .Missing ids"):
        submit(file, "m")


def test_nothing_but_a_submission_is_sent(signed_in: None, kaggle: Standin, tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match="no unlabelled test patches"):
        submit(tmp_path / "submission.csv", "m")
    (tmp_path / "submission.csv").write_text("id,probability\n")
    with pytest.raises(SubmissionError, match="expected id,label"):
        submit(tmp_path / "submission.csv", "m")
    assert kaggle.requests == []
