"""A `TrainConfig` from a preset, a YAML file and `key=value` settings; what is wrong is named in one sentence."""

import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args
from urllib.parse import unquote, urlsplit

from pydantic import ValidationError

from pcam_model.config import TrainConfig
from pcam_model.config_docs import key_docs
from pcam_model.core.errors import ConfigError, SourceError
from pcam_model.core.paths import resolve_store_uri
from pcam_model.core.yaml_text import MAX_YAML_BYTES, parse_yaml
from pcam_model.presets import PresetName, preset_keys

PRESETS: tuple[PresetName, ...] = get_args(PresetName)


def parse_source(source: str) -> dict[str, Any]:
    """The `source` keys that a `--source` option stands for: `sample`, `kaggle`, an address, or a path.

    Raises:
        ConfigError: it is an address of another kind.
    """
    if source in ("sample", "kaggle"):
        return {"kind": source, "path": ""}
    if source.startswith(("http://", "https://", "s3://")):
        return {"kind": "path", "path": source}
    if source.startswith("file:/"):
        source = unquote(urlsplit(source).path)
    if "://" in source or source.startswith(("s3:", "s3//")):
        raise ConfigError(
            f"source is {source!r}, expected sample, kaggle, a path, file:///path, s3://bucket/prefix or an http(s) "
            "address; correct it, or copy the patches to this machine and name the path"
        )
    return {"kind": "path", "path": str(Path(source).expanduser().resolve())}


def resolve_config(
    preset: str = "",
    file: Path | None = None,
    settings: Iterable[str] = (),
    source: str = "",
    store: str = "",
    run: str = "",
) -> TrainConfig:
    """The configuration that a command's options ask for; an option that is empty leaves preset and file as they are.

    Raises:
        ConfigError: see `read_config`.
    """
    keys: dict[str, Any] = {"source": parse_source(source)} if source else {}
    keys |= {"store": {"uri": store}} if store else {}
    keys |= {"run": run} if run else {}
    return read_config(file, settings, preset=preset, **keys)


def read_config(file: Path | None = None, settings: Iterable[str] = (), preset: str = "", **keys: Any) -> TrainConfig:
    """The configuration of a preset, a YAML file, `a.b=value` settings and keywords, each overriding those before it.

    Raises:
        ConfigError: there is no such preset, the file cannot be read, a key does not exist, or a value is out of range.
    """
    merged = _preset(preset) if preset else {}
    _merge(merged, _read_yaml(file) if file else {})
    for text in settings:
        _merge(merged, _parse_setting(text))
    _merge(merged, keys)
    return validate_config(merged)


def absolute_paths(config: TrainConfig) -> TrainConfig:
    """The configuration for a process in another folder: paths of patches, slides, weights and store are absolute.

    Raises:
        SourceError: a file or a folder is not there.
    """
    keys = config.model_dump(mode="json")
    for section, key in (("source", "path"), ("source", "slides"), ("model", "weights")):
        path = keys[section][key]
        if path not in ("", "imagenet", "none") and "://" not in path:
            if not Path(path).expanduser().exists():
                raise SourceError(
                    f"{path} is not there, expected a file or a folder; mend {section}.{key} and run again"
                )
            keys[section][key] = str(Path(path).expanduser().resolve())
    keys["store"]["uri"] = resolve_store_uri(config.store.uri)
    return validate_config(keys)


def override_preset(preset: PresetName | None, config: TrainConfig) -> TrainConfig:
    """The preset's configuration, with every key that was given explicitly in `config` in place of its own.

    Raises:
        ConfigError: the result is out of range, or `config` is that of another preset, so this one has no effect.
    """
    if preset is None:
        return config
    given = config.model_dump(mode="json", exclude_unset=True)
    for other in PRESETS:
        if other != preset and given == preset_parameters(other)["config"]:
            raise ConfigError(
                f"preset is {preset}, but config holds every key of {other}, and its keys override the preset's; give "
                f"the preset with an empty config: -p preset={preset} -p config={{}}"
            )
    merged = preset_keys(preset)
    _merge(merged, given)
    return validate_config(merged)


def preset_parameters(name: str) -> dict[str, Any]:
    """Parameters of a deployment that runs a preset: its name, and its configuration with every key, as JSON.

    A build step of `prefect deploy`: Prefect's form then shows the preset's values, where it would show the defaults.
    Keys that are given for a run override the preset's, one by one.
    """
    return {"preset": name, "config": read_config(preset=name).model_dump(mode="json")}


def validate_config(keys: dict[str, Any]) -> TrainConfig:
    """A configuration from nested keys. Raises ConfigError with one sentence that names all that is wrong."""
    try:
        return TrainConfig.model_validate(keys)
    except ValidationError as error:
        raise ConfigError("; ".join(dict.fromkeys(_complaints(error)))) from None


def key_names() -> Iterator[str]:
    """Every key of a configuration by its dotted name, as in `finetune.epochs`."""
    yield from (key.name for key in key_docs())


def _preset(name: str) -> dict[str, Any]:
    for known in PRESETS:
        if name == known:
            return preset_keys(known)
    raise ConfigError(f"there is no preset {name!r}; choose {', '.join(PRESETS)}, or give a YAML file with --config")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:
            keys = parse_yaml(file.read(MAX_YAML_BYTES + 1))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"the config {path} cannot be read ({reason}); give a YAML file like the one that `pcam config` prints"
        ) from None
    if not isinstance(keys, dict | None):
        raise ConfigError(f"the config {path} holds {type(keys).__name__}, expected keys like finetune: {{epochs: 3}}")
    return keys or {}


def _parse_setting(text: str) -> dict[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"--set {text!r} is not a setting; write a key and its value, as in finetune.epochs=3")
    try:
        nested: Any = parse_yaml(value) if value else ""
    except ValueError:
        nested = value
    for key in reversed(name.strip().split(".")):
        nested = {key: nested}
    return dict(nested)


def _merge(into: dict[str, Any], keys: dict[str, Any]) -> None:
    for key, value in keys.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _complaints(error: ValidationError) -> Iterator[str]:
    keys = {key.name: key for key in key_docs()}
    for problem in error.errors():
        path = [str(part) for part in problem["loc"]]
        names = [".".join(path[:length]) for length in range(len(path), 0, -1)]
        key = next((keys[name] for name in names if name in keys), None)
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            yield f"the config has no key {names[0]}; {_hint(names[0])}"
        elif problem["type"] == "value_error":
            yield f"the config's {key.name} is {problem['input']!r}: {message}" if key else message
        elif key:
            yield f"the config's {key.name} is {problem['input']!r}, expected {key.values}"
        else:
            name = names[0] if names else "top level"
            yield f"the config's {name} is {problem['input']!r}, expected keys like finetune: {{epochs: 3}}"


def _hint(name: str) -> str:
    known = list(key_names())
    last_words = [key for key in known if "." not in name and key.rpartition(".")[2] == name]
    near = last_words or difflib.get_close_matches(name, known, 1, 0.5)
    siblings = [key for key in known if key.rpartition(".")[0] == name.rpartition(".")[0]]
    return f"did you mean {' or '.join(near)}?" if near else f"known keys are {', '.join(siblings or known)}"
