"""Tables of predictions on disk: one of what was predicted, one of what could not be read; whole or not there."""

import csv
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

from pcam_model.core.errors import ConfigError
from pcam_model.core.files import disk_space_guard, replace_with
from pcam_model.core.schema import Record

COLUMNS, UNREADABLE = ("id", "probability", "label", "file"), ("id", "reason", "file")


class Rows(Record):
    """Some predictions."""

    rows: tuple[tuple[str, float, int, str], ...] = ()
    """Id, calibrated probability of tumour, label at the operating point, file."""
    unreadable: tuple[tuple[str, str, str], ...] = ()
    """Id, reason and file of what could not be read."""


class Counts(Record):
    """How many patches were predicted, called tumour, and could not be read."""

    patches: int = 0
    tumour: int = 0
    unreadable: int = 0


class Tables:
    """The two tables, under way."""

    def __init__(self, predictions: IO[str], errors: IO[str]) -> None:
        self._rows = csv.writer(predictions, lineterminator="\n")
        self._errors = csv.writer(errors, lineterminator="\n")
        self._rows.writerow(COLUMNS)
        self._errors.writerow(UNREADABLE)
        self.counts = Counts()

    def add(self, some: Rows) -> None:
        """Write some rows more."""
        self._rows.writerows((name, f"{chance:.9g}", label, file) for name, chance, label, file in some.rows)
        self._errors.writerows(some.unreadable)
        before = self.counts
        self.counts = Counts(
            patches=before.patches + len(some.rows),
            tumour=before.tumour + sum(row[2] for row in some.rows),
            unreadable=before.unreadable + len(some.unreadable),
        )


@contextmanager
def tables(out: Path) -> Iterator[Tables]:
    """Tables that are written beside `out` and appear whole when all went well.

    What could not be read goes to `errors_of(out)`; where all could be, one of an earlier time goes away.

    Raises:
        ConfigError: `out` cannot be written.
        DiskFullError: there is no room; what was there before stays.
    """
    if out.is_dir():
        raise ConfigError(f"{out} is a folder; name a file for the predictions, as in predictions.csv")
    with disk_space_guard(out.parent), _part(out) as predictions, _part(errors_of(out)) as errors:
        made = Tables(predictions, errors)
        yield made
        for file in (predictions, errors):
            file.flush()
            os.fsync(file.fileno())
        if made.counts.unreadable:
            replace_with(Path(errors.name), errors_of(out))
        else:
            errors_of(out).unlink(missing_ok=True)
        replace_with(Path(predictions.name), out)


def errors_of(out: Path) -> Path:
    """Where the unreadable images of `predictions.csv` are listed: `predictions.errors.csv`."""
    return out.with_suffix(f".errors{out.suffix}")


@contextmanager
def _part(path: Path) -> Iterator[IO[str]]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = NamedTemporaryFile(
            "w", newline="", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        )
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}); name another place for it") from None
    try:
        with part as file:
            yield file
    finally:
        Path(part.name).unlink(missing_ok=True)


def joined(some: Sequence[Rows]) -> Rows:
    """One after the other."""
    return Rows(
        rows=tuple(row for part in some for row in part.rows),
        unreadable=tuple(row for part in some for row in part.unreadable),
    )
