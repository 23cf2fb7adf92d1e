"""CSV tables of predictions: one of the predictions, one of the images that could not be read; written atomically."""

import csv
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkstemp
from typing import TextIO

import numpy as np

from pcam_model.core.conformal import UNSURE, ConformalQuantiles
from pcam_model.core.errors import ConfigError
from pcam_model.core.files import replace_file
from pcam_model.core.schema import Record
from pcam_model.core.write_guard import write_guard

PREDICTION_COLUMNS = ("id", "probability", "label", "file")
DECISION_COLUMN = "decision"  # the last one, of models with conformal quantiles
ERROR_COLUMNS = ("id", "reason", "file")


class PredictionRows(Record):
    """Rows of the two tables."""

    rows: tuple[tuple[str, float, int, str], ...] = ()
    """Id, calibrated probability of tumour, label at the operating point, file."""
    unreadable: tuple[tuple[str, str, str], ...] = ()
    """Id, reason and file of images that could not be read."""


class PredictionCounts(Record):
    """Numbers of patches that were predicted, that were called tumour, and that could not be read."""

    patches: int = 0
    tumour: int = 0
    unreadable: int = 0
    unsure: int | None = None
    """Of the predicted patches; None where the model has no conformal quantiles."""


class PredictionWriter:
    """Appends rows to the two tables and counts them."""

    def __init__(self, predictions: TextIO, errors: TextIO, conformal: ConformalQuantiles | None = None) -> None:
        self._predictions = csv.writer(predictions, lineterminator="\n")
        self._errors = csv.writer(errors, lineterminator="\n")
        self._conformal = conformal
        self._predictions.writerow((*PREDICTION_COLUMNS, *([DECISION_COLUMN] if conformal else [])))
        self._errors.writerow(ERROR_COLUMNS)
        self.counts = PredictionCounts(unsure=0 if conformal else None)

    def add(self, rows: PredictionRows) -> None:
        """Write rows and count them."""
        decisions = self._decisions(rows)
        self._predictions.writerows(
            (name, f"{chance:.9g}", label, file, *decision)
            for (name, chance, label, file), decision in zip(rows.rows, decisions, strict=True)
        )
        self._errors.writerows(rows.unreadable)
        self.counts = PredictionCounts(
            patches=self.counts.patches + len(rows.rows),
            tumour=self.counts.tumour + sum(label for _, _, label, _ in rows.rows),
            unreadable=self.counts.unreadable + len(rows.unreadable),
            unsure=None if self.counts.unsure is None else self.counts.unsure + decisions.count((UNSURE,)),
        )

    def _decisions(self, rows: PredictionRows) -> list[tuple[str, ...]]:
        """The cells of the last column, one tuple a row; empty tuples where there is no such column."""
        if self._conformal is None:
            return [()] * len(rows.rows)
        probability = np.array([chance for _, chance, _, _ in rows.rows], np.float64)
        return [(decision,) for decision in self._conformal.decisions(probability)]


@contextmanager
def write_predictions(
    out: Path, setting: str = "", conformal: ConformalQuantiles | None = None
) -> Iterator[PredictionWriter]:
    """A writer of the table `out`, which is replaced at the end of the block; if the block raises, it stays as it was.

    Images that could not be read go to `errors_path(out)`; where there are none, such a file of before is removed.

    Args:
        out: the table; where it is a link, the file that it points to.
        setting: the option or variable that names `out`, for messages.
        conformal: of the model; with it the table has a last column `decision`.

    Raises:
        ConfigError: `out` is a folder or a device.
        UnwritableError: `out` cannot be written to.
        DiskFullError: the disk is full.
    """
    out = Path(os.path.realpath(out))  # resolve() raises on links that lead to themselves
    with (
        write_guard(out.parent, setting),
        _temporary(out) as predictions,
        _temporary(errors_path(out)) as errors,
    ):
        writer = PredictionWriter(predictions, errors, conformal)
        yield writer
        for file in (predictions, errors):
            file.flush()
            os.fsync(file.fileno())
        if writer.counts.unreadable:
            replace_file(Path(errors.name), errors_path(out))
        else:
            errors_path(out).unlink(missing_ok=True)
        replace_file(Path(predictions.name), out)


def errors_path(out: Path) -> Path:
    """The table of unreadable images beside `predictions.csv`: `predictions.errors.csv`."""
    return out.with_suffix(f".errors{out.suffix}")


@contextmanager
def _temporary(path: Path) -> Iterator[TextIO]:
    """A temporary text file beside `path`, removed at the end where it has not been renamed."""
    _require_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        with Path(name).open("w", newline="", encoding="utf-8") as file:
            yield file
    finally:
        Path(name).unlink(missing_ok=True)


def _require_replaceable(path: Path) -> None:
    """Raise now what the rename at the end would: the predictions of hours would be lost."""
    if not path.exists():
        return
    if not path.is_file():
        raise ConfigError(f"{path} is a folder or a device; name a file for the predictions, as in predictions.csv")
    folder, owner = path.parent.stat(), path.stat().st_uid
    is_protected = folder.st_mode & stat.S_ISVTX and os.geteuid() not in (0, owner, folder.st_uid)
    if is_protected:  # as in /tmp, where a file is renamed by its owner alone
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))


def concat_rows(parts: Sequence[PredictionRows]) -> PredictionRows:
    """The rows of all parts, in order."""
    return PredictionRows(
        rows=tuple(row for part in parts for row in part.rows),
        unreadable=tuple(row for part in parts for row in part.unreadable),
    )
