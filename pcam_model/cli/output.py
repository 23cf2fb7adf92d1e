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


def print_splits(splits: Mapping[str, Metrics]) -> None:
    """Print a table of metrics with their 95 % intervals, a column per split (or run, or source)."""
    from rich.console import Console
    from rich.table import Table

    if not splits:
        return
    table = Table("metric", *splits, caption="with 95 % intervals")
    for name in dict.fromkeys(name for metrics in splits.values() for name in metrics):
        table.add_row(name, *(format_estimate(metrics.get(name)) for metrics in splits.values()))
    Console().print(table)


def format_estimate(estimate: Mapping[str, Any] | None) -> str:
    """A metric and the ends of its interval, as in `0.9312  (0.914 .. 0.945)`; `-` where there is none."""
    if estimate is None:
        return "-"
    low, high = estimate["low"], estimate["high"]
    interval = "" if low is None or high is None else f"  ({low:.3f} .. {high:.3f})"
    return f"{estimate['value']:.4f}{interval}"


def local_path(uri: str) -> str:
    """The path that a `file://` address stands for; any other address as it is."""
    parts = urlsplit(uri)
    return url2pathname(parts.path) if parts.scheme == "file" else uri
