"""Checks of a pack's data before training: blanks, repeats, conflicting labels, classes and colours."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from pcam_model.core.errors import SourceError
from pcam_model.core.files import write_atomic
from pcam_model.core.schema import Config, Record
from pcam_model.core.write_guard import write_guard
from pcam_model.data.contact_sheet import draw_contact_sheet
from pcam_model.data.pack import Pack, load_patches, load_table, read_quarantine

Rgb = tuple[float, float, float]
# Of Kaggle's 220,025 labelled patches, 0..1.
REFERENCE_MEAN: Rgb = (0.70245, 0.54624, 0.69645)
REFERENCE_STD: Rgb = (0.23889, 0.28209, 0.21625)
# Standard deviation of a patch's pixels, 0..1; of real tissue it is above 0.03.
BLANK_STD, NEARLY_BLANK_STD = 0.004, 0.02
SHEET, RECORD, QUARANTINE = "patches.png", "data_checks.json", "quarantine.csv"


class DataChecksConfig(Config):
    """Limits that the patches are checked against before training."""

    max_conflicts: float = Field(default=0.001, ge=0, le=1)
    """Stop where a larger share of the labelled patches has the same pixels as a patch with the other label."""
    max_blank: float = Field(default=0.2, ge=0, le=1)
    """Stop where a larger share of the patches is blank or nearly blank."""
    min_class: float = Field(default=0.01, ge=0, le=0.5)
    """Stop where a class has a smaller share of the labelled patches."""
    warn_share: float = Field(default=0.01, ge=0, le=1)
    """Warn where a larger share is blank, repeated or quarantined."""
    warn_colour: float = Field(default=0.1, ge=0, le=1)
    """Warn where mean or std of a channel is farther than this from that of Kaggle's set."""


class QualityReport(Record):
    """Counts of classes, blanks, repeats and conflicts in a pack, and its colours."""

    folder: str
    """Folder of data_checks.json, patches.png (a sheet of random patches) and, if any, quarantine.csv."""
    counts: dict[str, int]
    """Patches of class "0" and "1", and "unlabelled"."""
    mean: Rgb
    """Of the pack's red, green and blue, 0..1."""
    std: Rgb
    """Of the pack's red, green and blue, 0..1."""
    reference_mean: Rgb = REFERENCE_MEAN
    """Of Kaggle's set."""
    reference_std: Rgb = REFERENCE_STD
    """Of Kaggle's set."""
    blank: int
    """Patches of one colour."""
    nearly_blank: int
    """Patches of nearly one colour, blank ones not counted."""
    repeats: int
    """Patches that repeat an earlier one pixel for pixel."""
    conflicts: int
    """Labelled patches with the same pixels as one with the other label."""
    quarantined: int
    """Images that were set aside as bad."""
    warnings: tuple[str, ...]
    """What is unusual, a sentence each."""

    def summary(self) -> str:
        """The counts in a sentence."""
        normal, tumour, unlabelled = (self.counts[name] for name in ("0", "1", "unlabelled"))
        return (
            f"{normal:,} patches without and {tumour:,} with tumour, {unlabelled:,} unlabelled; {self.blank:,} blank "
            f"and {self.nearly_blank:,} nearly blank, {self.repeats:,} repeats, {self.conflicts:,} with "
            "conflicting labels"
        )

    def colour_rows(self) -> list[dict[str, Any]]:
        """A table of mean and std of each channel, here and in Kaggle's set, a row a figure."""
        pairs = (("mean", self.mean, self.reference_mean), ("std", self.std, self.reference_std))
        return [
            {"statistic": f"{name}, {colour}", "here": here[channel], "Kaggle's set": reference[channel]}
            for name, here, reference in pairs
            for channel, colour in enumerate(("red", "green", "blue"))
        ]


def check_quality(pack: Pack, config: DataChecksConfig, folder: Path, seed: int = 0) -> QualityReport:
    """Count what may be wrong with a pack and write the report and a sheet of random patches to `folder`.

    Raises:
        SourceError: more is wrong than the config allows; the report is written all the same.
    """
    table = load_table(pack)
    counts = count_problems(table)
    report = QualityReport(
        folder=str(folder), mean=pack.mean, std=pack.std, quarantined=pack.quarantined, **counts, warnings=()
    )
    report = report.model_copy(update={"warnings": tuple(find_warnings(report, pack, config))})
    with write_guard(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / RECORD, json.dumps(report.model_dump(exclude={"folder"}), indent=1).encode())
        if quarantine := read_quarantine(pack):
            write_atomic(folder / QUARANTINE, pd.DataFrame(quarantine).to_csv(index=False).encode())
        write_atomic(folder / SHEET, draw_contact_sheet(load_patches(pack), table["label"], seed))
    enforce_limits(report, pack, config)
    return report


def count_problems(table: pd.DataFrame) -> dict[str, Any]:
    """The counts of a QualityReport."""
    labelled = table[table["label"].notna()]
    conflicts = labelled.groupby("pixels")["label"].transform("nunique") > 1
    blank = (table["pixel_std"] < BLANK_STD).to_numpy()
    nearly_blank = (table["pixel_std"] < NEARLY_BLANK_STD).to_numpy() & ~blank
    labels = labelled["label"].astype(int)
    counts = {str(label): int((labels == label).sum()) for label in (0, 1)}
    return {
        "counts": {**counts, "unlabelled": len(table) - len(labelled)},
        "blank": int(blank.sum()),
        "nearly_blank": int(nearly_blank.sum()),
        "repeats": int(table["pixels"].duplicated().sum()),
        "conflicts": int(conflicts.sum()),
    }


def find_warnings(report: QualityReport, pack: Pack, config: DataChecksConfig) -> list[str]:
    """A sentence for each thing that is unusual."""
    threshold = config.warn_share * pack.count
    warnings = []
    if report.conflicts:
        warnings.append(f"{report.conflicts:,} patches have the same pixels as one with the other label")
    if report.repeats > threshold:
        warnings.append(f"{report.repeats:,} of {pack.count:,} patches repeat another pixel for pixel")
    if report.blank + report.nearly_blank > threshold:
        warnings.append(
            f"{report.blank:,} of {pack.count:,} patches are blank and {report.nearly_blank:,} nearly blank"
        )
    if report.quarantined > threshold:
        warnings.append(f"{report.quarantined:,} images were set aside as bad; {QUARANTINE} lists them")
    colours = (("mean", report.mean, report.reference_mean), ("std", report.std, report.reference_std))
    for name, here, reference in colours:
        if np.abs(np.subtract(here, reference)).max() > config.warn_colour:
            values = [", ".join(f"{value:.2f}" for value in channels) for channels in (here, reference)]
            warnings.append(f"the {name} of red, green and blue is {values[0]}, in Kaggle's set {values[1]}")
    return warnings


def enforce_limits(report: QualityReport, pack: Pack, config: DataChecksConfig) -> None:
    """Raise SourceError for what is beyond the config's limits."""
    labelled = report.counts["0"] + report.counts["1"]
    blank = report.blank + report.nearly_blank
    rarest = min(report.counts["0"], report.counts["1"])
    for share, key, problem in (
        (report.conflicts / max(labelled, 1), "max_conflicts", "have the same pixels as a patch with the other label"),
        (blank / max(pack.count, 1), "max_blank", "are blank or nearly blank"),
    ):
        limit = getattr(config, key)
        if share > limit:
            raise SourceError(
                f"{pack.source}: {share:.2%} of the patches {problem}, more than data_checks.{key}={limit:g} allows; "
                f"see {report.folder}, and correct the source or raise the limit"
            )
    if labelled and rarest / labelled < config.min_class:
        raise SourceError(
            f"{pack.source}: one class has {rarest:,} of {labelled:,} labelled patches, less than "
            f"data_checks.min_class={config.min_class:g} asks for; correct the labels or lower the limit"
        )
