"""Errors that a user can fix: each message says what was found, what was expected and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pcam_model.core.plain_text import hide_secrets

# Packages whose names on PyPI differ from those by which they are imported.
DISTRIBUTIONS = {"sklearn": "scikit-learn", "PIL": "pillow", "yaml": "pyyaml"}


class PcamError(Exception):
    """A user's mistake or a lack of this machine: shown as one sentence without a traceback, and not retried.

    Addresses in it are without their secrets.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(hide_secrets(message))


class ConfigError(PcamError):
    """The configuration is invalid."""


class SourceError(PcamError):
    """The source of patches is missing, incomplete or malformed."""


class SplitError(PcamError):
    """The patches cannot be split as configured."""


class WeightsError(PcamError):
    """The initial weights are unavailable or do not fit the network."""


class ModelError(PcamError):
    """A published model or run is missing, damaged or of an unknown kind."""


class CheckpointError(PcamError):
    """A training checkpoint is damaged, or of another network."""


class DamagedCheckpointError(CheckpointError):
    """A training checkpoint is not what was written."""


class CheckpointMismatchError(CheckpointError):
    """A checkpoint was written by a training with another configuration, other inputs or other code."""


class DivergenceError(PcamError):
    """The training loss or its gradient is not finite for several steps in a row."""


class DeviceMemoryError(PcamError):
    """Not even the smallest microbatch fits into the memory of the device."""


class StoreError(PcamError):
    """The store is unavailable or refuses a request."""


class SubmissionError(PcamError):
    """Kaggle has not scored the submission."""


class UnwritableError(PcamError):
    """A folder, or a file in it, cannot be written to."""

    def __init__(self, message: str, folder: Path | None = None) -> None:
        super().__init__(message)
        self.folder = folder


class DiskFullError(UnwritableError):
    """The disk of a folder is full."""


class BusyError(PcamError):
    """Another process holds the lock, or was quicker."""


class Interrupted(SystemExit):
    """A signal stopped the work after what was done had been saved; the same command resumes it.

    It is no `Exception`. As the end of a process it is exit code 75 (EX_TEMPFAIL, "try again").
    """

    CODE = 75

    def __init__(self, sentence: str):
        super().__init__(self.CODE)
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence


class MissingPackageError(PcamError):
    """An optional package is not installed."""


class MachineCheckError(PcamError):
    """The check of the machine found something that would make the run fail."""


class TransientError(Exception):
    """A fault that may pass by itself; tasks retry it. Addresses in it are without their secrets."""

    def __init__(self, message: str = "") -> None:
        super().__init__(hide_secrets(message))


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, cut where it is long; its class where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


@contextmanager
def require_package(what: str, extra: str = "") -> Iterator[None]:
    """Raise a `MissingPackageError` that says what to install where the block imports what is not installed.

    Args:
        what: what needs the package, as in "a pack" or "pcam train".
        extra: the extra of pcam that brings it, as in "onnx"; empty: the package is installed by its own name.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "pcam_model", "flows", "tasks"):  # a mistake in the code itself
            raise
        install = f"'pcam[{extra}]'" if extra else DISTRIBUTIONS.get(package, package)
        raise MissingPackageError(f"{what} needs {package}, which is not installed; pip install {install}") from None
