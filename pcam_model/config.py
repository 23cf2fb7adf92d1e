"""The whole plan of a training run: its keys, from a file and from `--set`, checked before anything starts."""

import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError

from pcam_model.data.quality import LookPlan
from pcam_model.data.source import SourcePlan
from pcam_model.data.split import SplitPlan
from pcam_model.core.errors import BadPlan
from pcam_model.evaluation.report import ScorePlan
from pcam_model.core.schema import Plan
from pcam_model.registry.backends.base import StorePlan
from pcam_model.training.device import ComputePlan
from pcam_model.training.lr_finder import SearchPlan
from pcam_model.training.network import NetworkPlan
from pcam_model.training.stage import FrozenPlan, TunedPlan


class TrainPlan(Plan):
    """What `pcam train` and the flow `pcam` are asked."""

    source: SourcePlan = SourcePlan()
    look: LookPlan = LookPlan()
    split: SplitPlan = SplitPlan()
    network: NetworkPlan = NetworkPlan()
    search: SearchPlan = SearchPlan()
    frozen: FrozenPlan = FrozenPlan()
    tuned: TunedPlan = TunedPlan()
    compute: ComputePlan = ComputePlan()
    score: ScorePlan = ScorePlan()
    store: StorePlan = StorePlan()
    run: str = ""
    """The run's name; the same name goes on with the same run. Empty: one is made up."""
    seed: int = Field(2, ge=0, lt=2**32)
    """Of all randomness but the split's."""

    def result(self) -> dict[str, Any]:
        """What decides the result: not where things lie (their digests count), nor what the run is called."""
        saving = set(ComputePlan.model_fields) - {"precision", "deterministic", "compile"}
        keys = self.model_dump(mode="json", exclude={"store": True, "run": True, "source": {"path"}, "compute": saving})
        keys["source"]["slides"] = Path(self.source.slides).name
        keys["network"]["weights"] = Path(self.network.weights).name
        return keys


def source_keys(source: str) -> dict[str, Any]:
    """The keys that a `--source` stands for: `sample`, `kaggle`, a web address or a path."""
    if source in ("sample", "kaggle"):
        return {"kind": source, "path": ""}
    if source.startswith(("http://", "https://")):
        return {"kind": "path", "path": source}
    return {"kind": "path", "path": str(Path(source).expanduser().resolve())}


def asked_plan(
    config: Path | None = None, sets: Iterable[str] = (), source: str = "", store: str = "", run: str = ""
) -> TrainPlan:
    """A plan as commands are asked for it; what is empty is left as the file and the settings have it."""
    keys: dict[str, Any] = {"source": source_keys(source)} if source else {}
    keys |= {"store": {"uri": store}} if store else {}
    keys |= {"run": run} if run else {}
    return read_plan(config, sets, **keys)


def read_plan(config: Path | None = None, sets: Iterable[str] = (), **keys: Any) -> TrainPlan:
    """A plan from a YAML file, then `a.b=value` settings, then keywords; later ones win.

    Raises:
        BadPlan: the file cannot be read, a key does not exist, or a value is not what its key takes.
    """
    merged = _file(config) if config else {}
    for text in sets:
        _merge(merged, _setting(text))
    _merge(merged, keys)
    return checked(merged)


def checked(keys: dict[str, Any]) -> TrainPlan:
    """A plan from nested keys. Raises BadPlan with one sentence for all that is wrong."""
    try:
        plan = TrainPlan.model_validate(keys)
    except ValidationError as error:
        raise BadPlan("; ".join(dict.fromkeys(_complaints(error)))) from None
    if plan.frozen.epochs + plan.tuned.epochs == 0:
        raise BadPlan("frozen.epochs and tuned.epochs are both 0, so nothing would be trained; raise one of them")
    if max(plan.frozen.patience, plan.tuned.patience) and not plan.split.test and plan.split.kind != "official":
        raise BadPlan(
            "patience lets the validation part choose where training stops, so figures on it would flatter; give a "
            "test part to report on (split.test=0.1), or split.kind=official where the patches bring one"
        )
    return plan


def _file(path: Path) -> dict[str, Any]:
    try:
        keys = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise BadPlan(f"the plan {path} cannot be read ({reason}); give a YAML file like those in deployments/plans") \
            from None  # fmt: skip
    if not isinstance(keys, dict | None):
        raise BadPlan(f"the plan {path} holds {type(keys).__name__}, expected keys like tuned: {{epochs: 3}}")
    return keys or {}


def _setting(text: str) -> dict[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise BadPlan(f"--set {text!r} is not a setting; write a key of the plan and its value, as in tuned.epochs=3")
    try:
        nested: Any = yaml.safe_load(value) if value else ""
    except yaml.YAMLError:
        nested = value
    for part in reversed(name.strip().split(".")):
        nested = {part: nested}
    return dict(nested)


def _merge(into: dict[str, Any], keys: dict[str, Any]) -> None:
    for key, value in keys.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _complaints(error: ValidationError) -> Iterator[str]:
    for one in error.errors():
        place = [str(part) for part in one["loc"] if part not in ("float", "int", "str") and "[" not in str(part)]
        name = ".".join(place)
        if one["type"] == "extra_forbidden":
            near = difflib.get_close_matches(name, list(_names(TrainPlan)), 1, 0.5)
            siblings = [key for key in _names(TrainPlan) if key.rpartition(".")[0] == name.rpartition(".")[0]]
            hint = f"did you mean {near[0]}?" if near else f"known keys are {', '.join(siblings or _names(TrainPlan))}"
            yield f"the plan has no key {name}; {hint}"
        else:
            message = one["msg"].removeprefix("Value error, ")
            yield f"the plan's {name} is {one['input']!r}: {message[:1].lower()}{message[1:]}"


def _names(model: type[BaseModel], above: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _names(kind, f"{above}{name}.")
        else:
            yield f"{above}{name}"
