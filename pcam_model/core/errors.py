"""Errors that a user can mend: each says what was found, what was expected and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager


class PcamError(Exception):
    """The user's to mend: shown as one sentence, never as a traceback, and never retried."""


class ConfigError(PcamError):
    """The config asks for something that cannot be."""


class SourceError(PcamError):
    """The patches are not there, not whole or not what they should be."""


class SplitError(PcamError):
    """The patches cannot be divided as asked."""


class WeightsError(PcamError):
    """The network's first weights cannot be had, or fit nothing."""


class ModelError(PcamError):
    """A model is missing, not whole or not what it says."""


class StoreError(PcamError):
    """The store cannot be reached, or refuses."""


class SubmissionError(PcamError):
    """Kaggle has no score for these predictions: they were not sent, not taken or not right."""


class DiskFullError(PcamError):
    """There is no room for what has to be written."""


class BusyError(PcamError):
    """Somebody else is doing just this, or was quicker."""


class Interrupted(SystemExit):
    """Training was asked to stop, saved what it had, and goes on when it is started again; never an `Exception`.

    As the end of a process it is the exit code 75, the system's word for "try again" (EX_TEMPFAIL).
    """

    CODE = 75

    def __init__(self, sentence: str):
        super().__init__(self.CODE)
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence


class MachineCheckError(PcamError):
    """This machine, with this config, could not do the job."""


class TransientError(Exception):
    """May well go away by itself: a task retries it."""


@contextmanager
def require_package(what: str) -> Iterator[None]:
    """Name the package that is not installed: who only predicts image files does without some."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise PcamError(f"{what} cannot be read without {error.name}; pip install {error.name}") from None
