"""`python -m deployments.automations [--silence SECONDS] [--alert TYPE/NAME]`: what automations.yaml has, made anew.

`--alert` names a notification block of the server (`custom-webhook/pcam`, `sendgrid-email/pcam` and their like; made
on the server's page, or with `prefect block`), which is told of every run that ends badly.
"""

import argparse
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

from pcam_model.core.errors import ConfigError, PcamError

FILE = Path(__file__).parent / "automations.yaml"
SILENT = "pcam-crash-silent-runs"


def make_automations(silence: int | None = None, alert: str = "") -> list[str]:
    """All automations of the file, made or brought up to date; their names.

    Args:
        silence: seconds in the file's place; heartbeats come every 30.
        alert: the notification block that is told, as TYPE/NAME; empty: nobody.
    """
    names = []
    for content in _wanted(alert):
        automation = Automation.model_validate(content)
        if silence is not None and automation.name == SILENT:
            automation.trigger.retry_policy = timedelta(seconds=silence)  # type: ignore[union-attr]
        try:
            automation.id = Automation.read(name=automation.name).id
            automation.update()
        except (ValueError, ObjectNotFound):
            automation.create()
        names.append(automation.name)
    return names


def _wanted(alert: str) -> Iterator[dict[str, Any]]:
    file = yaml.safe_load(FILE.read_text())
    yield from file["automations"]
    if alert:
        block = _block(alert)
        actions = [{**action, "block_document_id": block} for action in file["alert"]["actions"]]
        yield {**file["alert"], "actions": actions}


def _block(alert: str) -> str:
    kind, _, name = alert.partition("/")
    try:
        with get_client(sync_client=True) as client:
            return str(client.read_block_document_by_name(name, kind).id)
    except ObjectNotFound:
        raise ConfigError(
            f"the server has no notification block {alert!r}, expected TYPE/NAME of one that `prefect block ls` shows; "
            "make it on the server's page, Blocks"
        ) from None


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(prog="python -m deployments.automations", description=__doc__)
    _parser.add_argument("--silence", type=int, help="seconds after which a silent run is Crashed")
    _parser.add_argument("--alert", default="", help="the notification block that is told of bad ends, TYPE/NAME")
    _options = _parser.parse_args()
    try:
        print("On the server:", ", ".join(make_automations(_options.silence, _options.alert)))
    except PcamError as _error:
        sys.exit(str(_error))
