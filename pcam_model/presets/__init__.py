"""Ready training configurations, shipped with the package as YAML."""

from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

PresetName = Literal["sample", "quick", "pcam", "recipe"]
FOLDER = Path(__file__).parent


def preset_text(name: PresetName) -> str:
    """The preset's YAML, comments included."""
    return (FOLDER / f"{name}.yaml").read_text("utf-8")


@cache
def _preset_keys(name: PresetName) -> Any:
    return yaml.safe_load(preset_text(name))


def preset_keys(name: PresetName) -> dict[str, Any]:
    """The preset's keys as a nested dictionary: those that differ from the defaults of `TrainConfig`."""
    return {key: dict(value) if isinstance(value, dict) else value for key, value in _preset_keys(name).items()}
