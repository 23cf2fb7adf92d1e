"""One thing that was looked at."""

from collections.abc import Iterable
from typing import Literal

from pcam_model.core.errors import MachineCheckError
from pcam_model.core.schema import Record
from pcam_model.registry.backends.base import StoreUnavailable


class Finding(Record):
    """What was found, what was expected, and what to do about it."""

    what: str
    found: str
    expected: str
    remedy: str = ""
    """Empty where nothing has to be done."""
    level: Literal["fine", "warning", "failed"] = "fine"
    """failed: the job could not succeed."""
    passing: bool = False
    """A failure that may go away by itself: it is worth waiting for."""


def refuse(findings: Iterable[Finding]) -> list[Finding]:
    """The findings, where none has failed.

    Raises:
        StoreUnavailable: all that failed may go away by itself.
        MachineCheckError: one sentence of everything else.
    """
    seen = list(findings)
    failed = [finding for finding in seen if finding.level == "failed"]
    if failed:
        sentence = "; ".join(f"{each.what}: found {each.found}, expected {each.expected}; {each.remedy}"
                             for each in failed)  # fmt: skip
        raise StoreUnavailable(sentence) if all(each.passing for each in failed) else MachineCheckError(sentence)
    return seen
