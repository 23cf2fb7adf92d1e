"""What commands print on standard output: JSON and tables of figures. Notes are log lines, on standard error."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

Figures = Mapping[str, Mapping[str, Any]]  # figure -> value, low, high


def print_json(content: Any) -> None:
    """Print JSON for other programs."""
    print(json.dumps(content, indent=1))


def print_splits(splits: Mapping[str, Figures]) -> None:
    """Print a table of figures with their 95 % intervals, a column a split (or a run, or a source)."""
    from rich.console import Console
    from rich.table import Table

    if not splits:
        return
    table = Table("figure", *splits, caption="with 95 % intervals")
    for name in dict.fromkeys(name for figures in splits.values() for name in figures):
        table.add_row(name, *(format_figure(figures.get(name)) for figures in splits.values()))
    Console().print(table)


def format_figure(figure: Mapping[str, Any] | None) -> str:
    """A figure and the ends of its interval, as in `0.9312  (0.914 .. 0.945)`."""
    if figure is None:
        return "-"
    interval = (
        "" if figure["low"] is None or figure["high"] is None else f"  ({figure['low']:.3f} .. {figure['high']:.3f})"
    )
    return f"{figure['value']:.4f}{interval}"


def local_path(uri: str) -> str:
    """The path that a `file://` address stands for; any other address as it is."""
    parts = urlsplit(uri)
    return url2pathname(parts.path) if parts.scheme == "file" else uri
