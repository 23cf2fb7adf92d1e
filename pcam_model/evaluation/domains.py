"""Metrics by domain, as by centre or scanner, and the difference of two models in each of them."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import pandas as pd

from pcam_model.evaluation.bootstrap import resampling_units
from pcam_model.evaluation.compare import auc_difference
from pcam_model.evaluation.cross_fit import ScoredSplit
from pcam_model.evaluation.intervals import estimate_intervals
from pcam_model.evaluation.metrics import Array
from pcam_model.evaluation.report_schema import Difference, DomainMetrics, IntervalMethod

DOMAIN_METRICS = ("auc", "sensitivity", "specificity", "ece")


def domain_masks(table: pd.DataFrame) -> Iterator[tuple[str, Array]]:
    """Each known domain of a table (N rows), by name, with the mask (N,) of its rows."""
    if "domain" in table:
        for domain in sorted(table["domain"].dropna().unique()):
            yield str(domain), (table["domain"] == domain).to_numpy(bool)


def domain_metrics(split: ScoredSplit, point: str, seed: int) -> list[DomainMetrics]:
    """AUC, sensitivity and specificity at an operating point, and ECE of each known domain, the lowest AUC first."""
    rows = [_metrics_of(split, point, seed, domain, mask) for domain, mask in domain_masks(split.table)]
    return sorted(rows, key=lambda row: row.figures["auc"].value if "auc" in row.figures else 2.0)


def _metrics_of(split: ScoredSplit, point: str, seed: int, domain: str, mask: Array) -> DomainMetrics:
    scored = split.scored
    selected = replace(
        scored,
        labels=scored.labels[mask],
        log_odds=scored.log_odds[mask],
        probability=scored.probability[mask],
        uncalibrated=scored.uncalibrated[mask],
        predicted={point: scored.predicted[point][mask]},
        units=resampling_units(split.table["slide"][mask]),
        sets=None,
        weights=None if scored.weights is None else scored.weights[mask],
    )
    estimates = estimate_intervals(selected, seed, bands=False)
    figures = {**estimates.by_point[point], **estimates.threshold_free}
    units = selected.units
    return DomainMetrics(
        domain=domain,
        patches=len(selected.labels),
        tumour=int(selected.labels.sum()),
        intervals=IntervalMethod(unit=units.kind, units=units.count, resamples=estimates.resamples),
        figures={name: figures[name] for name in DOMAIN_METRICS if name in figures},
    )


def domain_differences(tables: Mapping[str, pd.DataFrame], seed: int) -> dict[str, Difference]:
    """The difference in AUC of two tables of predictions, of the same patches, in each domain that has both classes.

    Raises:
        ConfigError: not two tables, or of different patches.
    """
    first = next(iter(tables.values()))
    differences = {}
    for domain, mask in domain_masks(first):
        ids = first["id"][mask]
        if first["label"][mask].nunique() == 2:
            selected = {name: table[table["id"].isin(ids)] for name, table in tables.items()}
            differences[domain] = auc_difference(selected, seed)
    return differences
