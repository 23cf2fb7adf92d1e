"""The result of one check."""

from collections.abc import Iterable
from typing import Literal

from pcam_model.core.errors import MachineCheckError, PcamError
from pcam_model.core.schema import Record
from pcam_model.registry.backends.base import StoreUnavailable


class Finding(Record):
    """What was found, what was expected, and what to do about it."""

    what: str
    """What was checked, as in "GPU"."""
    found: str
    expected: str
    remedy: str = ""
    """What to do; empty where nothing has to be done."""
    level: Literal["fine", "warning", "failed"] = "fine"
    """failed: a run would fail."""
    transient: bool = False
    """Whether the failure may pass by itself, so that a retry is worth while."""

    @classmethod
    def of_error(cls, what: str, error: PcamError, expected: str, remedy: str = "") -> "Finding":
        """A failed finding of an error; `remedy` where the error's message does not end with one after `; `."""
        found, separator, last = str(error).rpartition("; ")
        if not separator:
            found, last = last, remedy
        return cls(what=what, found=found, expected=expected, remedy=last, level="failed")


def raise_for_failures(findings: Iterable[Finding]) -> list[Finding]:
    """The findings, where none has failed.

    Raises:
        StoreUnavailable: all failures are transient.
        MachineCheckError: some are not.
    """
    checked = list(findings)
    failures = [finding for finding in checked if finding.level == "failed"]
    if not failures:
        return checked
    sentences = [
        f"{failure.what}: found {failure.found}, expected {failure.expected}; {failure.remedy}" for failure in failures
    ]
    numbered = [f"({number}) {sentence}" for number, sentence in enumerate(sentences, 1)]
    message = "; ".join(numbered if len(numbered) > 1 else sentences)
    raise StoreUnavailable(message) if all(failure.transient for failure in failures) else MachineCheckError(message)
