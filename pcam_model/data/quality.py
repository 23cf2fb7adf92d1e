"""A look at the data before the money is spent on training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from pcam_model.core.errors import SourceError
from pcam_model.core.files import disk_space_guard, write_atomic
from pcam_model.core.schema import Config, Record
from pcam_model.data.contact_sheet import draw_sheet
from pcam_model.data.pack import Pack, patches, quarantine, table

Three = tuple[float, float, float]
# Of Kaggle's 220,025 labelled patches, 0..1.
KNOWN_MEAN: Three = (0.70245, 0.54624, 0.69645)
KNOWN_STD: Three = (0.23889, 0.28209, 0.21625)
# Standard deviation of a patch's pixels, 0..1: real tissue lies above 0.03.
BLANK, NEARLY_BLANK = 0.004, 0.02
SHEET, RECORD, ASIDE = "patches.png", "look.json", "quarantine.csv"


class DataChecksConfig(Config):
    """What stops a run, and what is said."""

    max_conflicts: float = Field(default=0.001, ge=0, le=1)
    """Stop when a larger share of the labelled patches has the pixels of one with the other label."""
    max_blank: float = Field(default=0.2, ge=0, le=1)
    """Stop when a larger share of the patches is blank or nearly so."""
    min_class: float = Field(default=0.01, ge=0, le=0.5)
    """Stop when a class has a smaller share of the labelled patches."""
    warn_share: float = Field(default=0.01, ge=0, le=1)
    """Say so when a larger share is blank, repeated or set aside."""
    warn_colour: float = Field(default=0.1, ge=0, le=1)
    """Say so when mean or std of a channel is farther than this from Kaggle's set."""


class QualityReport(Record):
    """What a pack looks like."""

    folder: str
    """Where look.json, patches.png (the sheet of random patches) and quarantine.csv (images set aside, if any) lie."""
    counts: dict[str, int]
    """Patches of class "0" and "1", and "unlabelled"."""
    mean: Three
    """Of the pack, a channel, 0..1."""
    std: Three
    """Of the pack, a channel, 0..1."""
    known_mean: Three = KNOWN_MEAN
    """Of Kaggle's set."""
    known_std: Three = KNOWN_STD
    """Of Kaggle's set."""
    blank: int
    """Patches of one colour."""
    nearly_blank: int
    """Patches of nearly one colour, blank ones not counted."""
    repeats: int
    """Patches whose pixels another patch before them has too."""
    conflicts: int
    """Labelled patches whose pixels a patch with the other label has too."""
    quarantined: int
    """Images that were set aside as no patches."""
    warnings: tuple[str, ...]
    """What a person should know, a sentence each."""

    def described(self) -> str:
        """The counts in a sentence."""
        without, tumour, unlabelled = (self.counts[name] for name in ("0", "1", "unlabelled"))
        return (
            f"{without:,} patches without and {tumour:,} with tumour, {unlabelled:,} unlabelled; {self.blank:,} blank "
            f"and {self.nearly_blank:,} nearly so, {self.repeats:,} repeats, {self.conflicts:,} in conflict"
        )

    def colours(self) -> list[dict[str, Any]]:
        """A row a figure: what it is here and in Kaggle's set, a channel."""
        pairs = (("mean", self.mean, self.known_mean), ("std", self.std, self.known_std))
        return [
            {"figure": f"{name}, {colour}", "here": here[place], "Kaggle's set": known[place]}
            for name, here, known in pairs
            for place, colour in enumerate(("red", "green", "blue"))
        ]


def check_quality(pack: Pack, config: DataChecksConfig, folder: Path, seed: int = 0) -> QualityReport:
    """Count what may be wrong with a pack, draw a sheet of it, write both to `folder`.

    Raises SourceError when more is wrong than the config allows; what was seen is written all the same.
    """
    rows = table(pack)
    found = QualityReport(
        folder=str(folder),
        mean=pack.mean,
        std=pack.std,
        quarantined=pack.quarantined,
        **counted(rows),
        warnings=(),
    )
    found = found.model_copy(update={"warnings": tuple(warned(found, pack, config))})
    with disk_space_guard(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / RECORD, json.dumps(found.model_dump(exclude={"folder"}), indent=1).encode())
        if aside := quarantine(pack):
            write_atomic(folder / ASIDE, pd.DataFrame(aside).to_csv(index=False).encode())
        write_atomic(folder / SHEET, draw_sheet(patches(pack), rows["label"], seed))
    refuse(found, pack, config)
    return found


def counted(rows: pd.DataFrame) -> dict[str, Any]:
    """The figures of a table."""
    labelled = rows[rows["label"].notna()]
    both = labelled.groupby("pixels")["label"].transform("nunique") > 1
    blank = (rows["spread"] < BLANK).to_numpy()
    known = labelled["label"].astype(int)
    return {
        "counts": {
            "0": int((known == 0).sum()),
            "1": int((known == 1).sum()),
            "unlabelled": len(rows) - len(labelled),
        },
        "blank": int(blank.sum()),
        "nearly_blank": int(((rows["spread"] < NEARLY_BLANK).to_numpy() & ~blank).sum()),
        "repeats": int(rows["pixels"].duplicated().sum()),
        "conflicts": int(both.sum()),
    }


def warned(found: QualityReport, pack: Pack, config: DataChecksConfig) -> list[str]:
    """A sentence for each thing that is unusual."""
    most = config.warn_share * pack.count
    said = []
    if found.conflicts:
        said.append(f"{found.conflicts:,} patches have the same pixels as one with the other label")
    if found.repeats > most:
        said.append(f"{found.repeats:,} of {pack.count:,} patches repeat another pixel for pixel")
    if found.blank + found.nearly_blank > most:
        said.append(f"{found.blank:,} of {pack.count:,} patches are blank and {found.nearly_blank:,} nearly so")
    if found.quarantined > most:
        said.append(f"{found.quarantined:,} images were set aside as no patches; {ASIDE} lists them")
    for name, here, known in (("mean", found.mean, found.known_mean), ("std", found.std, found.known_std)):
        if np.abs(np.subtract(here, known)).max() > config.warn_colour:
            shown = [", ".join(f"{value:.2f}" for value in values) for values in (here, known)]
            said.append(f"the {name} of red, green and blue is {shown[0]}, in Kaggle's set {shown[1]}")
    return said


def refuse(found: QualityReport, pack: Pack, config: DataChecksConfig) -> None:
    """Raise SourceError for what is beyond the config's limits."""
    labelled = found.counts["0"] + found.counts["1"]
    blank = found.blank + found.nearly_blank
    least = min(found.counts["0"], found.counts["1"])
    for share, limit, what in (
        (found.conflicts / max(labelled, 1), config.max_conflicts, "have the pixels of one with the other label"),
        (blank / max(pack.count, 1), config.max_blank, "are blank or nearly so"),
    ):
        if share > limit:
            raise SourceError(
                f"{pack.source}: {share:.2%} of the patches {what}, more than the {limit:.2%} that the config allows; "
                f"see {found.folder}, and mend the source or raise the limit"
            )
    if labelled and least / labelled < config.min_class:
        raise SourceError(
            f"{pack.source}: one class has {least:,} of {labelled:,} labelled patches, less than the "
            f"{config.min_class:.2%} that the config asks for; mend the labels or lower the limit"
        )
