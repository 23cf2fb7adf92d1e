"""YAML that people write: read within limits, so that a small file cannot take all memory."""

from typing import Any

import yaml

MAX_YAML_BYTES = 1 << 18


class _Loader(yaml.SafeLoader):
    """Plain values, without aliases: ten levels of ten aliases stand for ten thousand million values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            name = self.peek_event().anchor  # type: ignore[no-untyped-call]
            raise yaml.YAMLError(f"it has the alias *{name}, which is not read; write the value itself")
        return super().compose_node(parent, index)


def parse_yaml(text: str) -> Any:
    """The value of a YAML text. Raises ValueError, without the file's name, where it is none, too large or too deep."""
    if len(text) > MAX_YAML_BYTES:
        raise ValueError(f"it has more than {MAX_YAML_BYTES:,} characters")
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
