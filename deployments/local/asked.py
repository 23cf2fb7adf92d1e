"""From what a user asks of `make train` to the flow's parameters."""

import shlex
from pathlib import Path
from typing import Any

import yaml

from deployments.local import places
from pcam_model.errors import BadPlan, BadSource


def parameters(plan: str, source: str = "", run: str = "", settings: str = "", store: str = "") -> dict[str, Any]:
    """The flow's parameters: the plan file, then what was set by hand; every path made absolute."""
    asked = _read(Path(plan).expanduser())
    for setting in shlex.split(settings):
        _set(asked, setting)
    if source:
        asked["source"] = {**asked.get("source", {}), **_source(source)}
    if run:
        asked["run"] = run
    if store:
        asked["store"] = {**asked.get("store", {}), "uri": store}
    return _absolute(asked)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise BadPlan(f"PLAN={path}: {error.strerror}; give a YAML file such as deployments/plans/sample.yaml") from None
    except yaml.YAMLError as error:
        raise BadPlan(f"PLAN={path}: this is not YAML ({' '.join(str(error).split())}); mend it and run again") from None
    if not isinstance(content, dict):
        raise BadPlan(f"PLAN={path}: found {type(content).__name__}, expected keys such as source, network and tuned")
    return content


def _source(source: str) -> dict[str, str]:
    if source in ("sample", "kaggle"):
        return {"kind": source, "path": ""}
    return {"kind": "path", "path": source}


def _set(asked: dict[str, Any], setting: str) -> None:
    """Obey one `key.key=value`; the value is read as YAML, so 3, 1e-4, true and [1, 2] are what they look like."""
    key, is_setting, value = setting.partition("=")
    *way, last = key.split(".")
    if not is_setting or not all((*way, last)):
        raise BadPlan(f"SET={setting}: found no key.key=value; write for example SET='tuned.epochs=3 seed=4'")
    place = asked
    for word in way:
        place = place.setdefault(word, {})
        if not isinstance(place, dict):
            raise BadPlan(f"SET={setting}: {word} is a value, not a group of keys; give {word}=... itself")
    place[last] = _value(value)


def _value(text: str) -> Any:
    value = yaml.safe_load(text)
    if isinstance(value, str):  # YAML 1.1 takes 1e-4 for a word
        try:
            return float(value)
        except ValueError:
            return value
    return "" if value is None else value


def _absolute(asked: dict[str, Any]) -> dict[str, Any]:
    """A worker has its own working directory: what is a path here must be one there."""
    source, network, store = (asked.get(key) or {} for key in ("source", "network", "store"))
    for key in ("path", "slides"):
        if source.get(key):
            source[key] = _existing(source[key], f"source.{key}")
    if network.get("weights") not in (None, "", "imagenet", "none"):
        network["weights"] = _existing(network["weights"], "network.weights")
    if store.get("uri"):
        store["uri"] = places.address(store["uri"])
    return asked


def _existing(path: str, key: str) -> str:
    whole = Path(path).expanduser().resolve()
    if not whole.exists():
        raise BadSource(f"{path}: found nothing there ({whole}), expected a file or a folder; mend {key} and run again")
    return str(whole)
