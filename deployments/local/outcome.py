"""What a run tells its user: its log as plain lines, and at the end where everything is."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from prefect.client.schemas.objects import Log

from pcam_model.registry.backends.base import StorePlan, open_store
from pcam_model.registry.manifest import read_manifest


def show_line(line: Log) -> None:
    """One line of the log: the local time, and its level where it is not a plain word."""
    level = f"{logging.getLevelName(line.level)}: " if line.level >= logging.WARNING else ""
    print(f"{line.timestamp.astimezone():%H:%M:%S}  {level}{line.message}", flush=True)


def show(store_uri: str, run: str, seconds: float) -> None:
    """The figures, the report's folder and the model's place of a published run."""
    store = open_store(StorePlan(uri=store_uri).uri)
    manifest, published = read_manifest(store, run)
    metrics = next((path for path in manifest.files if path.endswith("report/metrics.json")), None)
    print(f"\nRun {run}: published after {seconds / 60:.1f} minutes")
    if metrics:
        for line in _figures(json.loads(store.read(f"runs/{run}/{metrics}"))):
            print(f"  {line}")
        print(f"Report: {_place(f'{published.uri}/{metrics}'.rpartition('/')[0])}")
    print(f"Model:  {_place(f'{published.uri}/model')}")


def _figures(metrics: dict[str, Any]) -> Iterator[str]:
    for side, scored in metrics.get("sides", {}).items():
        words = [f"{name.replace('_', ' ')} {_number(value)}" for name, value in scored["figures"].items()]
        yield f"{side} ({scored['count']:,} patches): {', '.join(words)}"


def _number(value: Any) -> str:
    """A figure, with its interval where it has one."""
    if isinstance(value, dict):
        ends = [value.get(end) for end in ("low", "high")]
        interval = "" if None in ends else f" ({ends[0]:.3f}-{ends[1]:.3f})"
        return f"{_number(value.get('value'))}{interval}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _place(uri: str) -> str:
    """A folder as a path, everything else as its address."""
    return str(Path(unquote(urlparse(uri).path))) if uri.startswith("file://") else uri
