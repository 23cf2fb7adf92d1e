"""`python -m deployments.automations [SECONDS]`: make or update the automations of automations.yaml on the server."""

import sys
from datetime import timedelta
from pathlib import Path

import yaml
from prefect.automations import Automation
from prefect.exceptions import ObjectNotFound

FILE = Path(__file__).parent / "automations.yaml"


def make_automations(silence: int | None = None) -> list[str]:
    """All automations of the file, made or brought up to date; their names. `silence`: seconds in the file's place."""
    names = []
    for content in yaml.safe_load(FILE.read_text())["automations"]:
        automation = Automation.model_validate(content)
        if silence is not None:
            automation.trigger.within = timedelta(seconds=silence)  # type: ignore[union-attr]
        try:
            automation.id = Automation.read(name=automation.name).id
            automation.update()
        except (ValueError, ObjectNotFound):
            automation.create()
        names.append(automation.name)
    return names


if __name__ == "__main__":
    print("On the server:", ", ".join(make_automations(int(sys.argv[1]) if sys.argv[1:] else None)))
