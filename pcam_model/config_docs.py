"""Documentation of the configuration's keys, from their types, ranges, defaults and docstrings."""

import textwrap
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import annotated_types
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pcam_model.config import TrainConfig

YAML_WIDTH = 118
TYPE_NAMES = {int: "a whole number", float: "a number", str: "text"}


class KeyDoc(NamedTuple):
    """Name, values, default and description of a configuration key."""

    name: str
    """Dotted, as in `finetune.epochs`."""
    values: str
    """The values that it takes, as in `auto, or 2 to 65536`."""
    default: Any
    description: str


def key_docs(model: type[BaseModel] = TrainConfig, prefix: str = "") -> Iterator[KeyDoc]:
    """Every key of a configuration, section after section."""
    for name, field in model.model_fields.items():
        section = _section(field)
        if section:
            yield from key_docs(section, f"{prefix}{name}.")
        else:
            values = describe_values(field.annotation, field.metadata)
            yield KeyDoc(f"{prefix}{name}", values, _plain(field.default), " ".join((field.description or "").split()))


def section_docs() -> dict[str, str]:
    """The description of each section of `TrainConfig`."""
    return {name: field.description or "" for name, field in TrainConfig.model_fields.items() if _section(field)}


def describe_values(annotation: Any, metadata: list[Any]) -> str:
    """The values of a type in words, as in `none, or at least 2`; `metadata` has the limits of its numbers."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        title = next((item.title for item in arguments[1:] if isinstance(item, FieldInfo) and item.title), "")
        return title or describe_values(arguments[0], _limits(arguments[1:]))
    if origin is Literal:
        return " or ".join(", ".join(map(str, arguments)).rsplit(", ", 1))
    if origin in (Union, UnionType):
        alternatives = sorted(arguments, key=lambda argument: argument is not NoneType)  # none first
        return ", or ".join(describe_values(argument, metadata) for argument in alternatives)
    if origin is tuple:
        return f"a list, each {describe_values(arguments[0], [])}"
    if annotation is NoneType:
        return "null"
    if annotation is bool:
        return "true or false"
    return _describe_limits(metadata) or TYPE_NAMES[annotation]


def commented_yaml(config: TrainConfig, title: str) -> str:
    """A configuration as YAML with every key, each below its description, values and default; a valid config file."""
    docs = {key.name: key for key in key_docs()}
    sections = section_docs()
    lines = [*_comment(title, ""), ""]
    for name, value in config.model_dump(mode="json").items():
        if name not in sections:
            lines += [*_key_lines(docs[name], name, value, ""), ""]
            continue
        lines += [*_comment(sections[name], ""), f"{name}:"]
        for key, inner in value.items():
            lines += _key_lines(docs[f"{name}.{key}"], key, inner, "  ")
        lines.append("")
    return "\n".join(lines)


def yaml_value(value: Any) -> str:
    """A value as it is written in YAML, on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _key_lines(doc: KeyDoc, key: str, value: Any, indent: str) -> list[str]:
    values = f"Values: {doc.values}. Default: {yaml_value(doc.default)}."
    return [*_comment(doc.description, indent), *_comment(values, indent), f"{indent}{key}: {yaml_value(value)}"]


def _comment(text: str, indent: str) -> list[str]:
    prefix = f"{indent}# "
    return textwrap.wrap(text, YAML_WIDTH, initial_indent=prefix, subsequent_indent=prefix, break_on_hyphens=False)


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _limits(metadata: Any) -> list[Any]:
    return [limit for item in metadata for limit in (item.metadata if isinstance(item, FieldInfo) else [item])]


def _describe_limits(metadata: list[Any]) -> str:
    """Limits in words: `2 to 10`, `more than 0, at most 0.5`, `at least 0`."""
    low: Any = None
    words: list[str] = []
    for limit in metadata:
        match limit:
            case annotated_types.Ge(ge=value):
                low = value
                words.append(f"at least {value}")
            case annotated_types.Gt(gt=value):
                words.append(f"more than {value}")
            case annotated_types.Le(le=value):
                if low is not None:
                    return f"{low} to {value}"
                words.append(f"at most {value}")
            case annotated_types.Lt(lt=value):
                words.append(f"less than {value}")
    return ", ".join(words)


def _plain(default: Any) -> Any:
    return list(default) if isinstance(default, tuple) else default
