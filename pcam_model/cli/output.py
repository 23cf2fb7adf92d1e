"""What commands print on standard output: JSON and tables of metrics. Notes are log lines, on standard error."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

Metrics = Mapping[str, Mapping[str, Any]]  # metric -> value, low, high


def print_json(content: Any) -> None:
    """Print JSON for other programs."""
    print(json.dumps(content, indent=1))


def print_metrics(columns: Mapping[str, Metrics], title: str = "") -> None:
    """Print a table of metrics with their 95 % intervals, a column per split, run or source."""
    from rich.console import Console
    from rich.table import Table

    from pcam_model.core.estimate import METRIC_TITLES, Estimate, describe_estimate

    if not columns:
        return
    table = Table("metric", *columns, title=title or None, caption="with 95 % intervals")
    present = dict.fromkeys(name for metrics in columns.values() for name in metrics)
    ordered = [name for name in METRIC_TITLES if name in present]
    for name in [*ordered, *(name for name in present if name not in METRIC_TITLES)]:
        estimates = (metrics.get(name) for metrics in columns.values())
        table.add_row(name, *(describe_estimate(Estimate.model_validate(each)) if each else "-" for each in estimates))
    Console().print(table)


def local_path(uri: str) -> str:
    """The path that a `file://` address stands for; any other address as it is."""
    parts = urlsplit(uri)
    return url2pathname(parts.path) if parts.scheme == "file" else uri
