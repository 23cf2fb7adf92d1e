"""YAML that people write: read within limits, so that a small file cannot take all memory."""

from typing import Any

import yaml

MAX_YAML_BYTES = 1 << 18
MAX_DIGITS = 100


class _Loader(yaml.SafeLoader):
    """Plain values, without aliases: ten levels of ten aliases stand for ten thousand million values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            name = self.peek_event().anchor  # type: ignore[no-untyped-call]
            raise yaml.YAMLError(f"it has the alias *{name}, which is not read; write the value itself")
        return super().compose_node(parent, index)

    def construct_yaml_int(self, node: Any) -> int:
        """A whole number of a length that Python prints."""
        if len(node.value) > MAX_DIGITS:
            raise yaml.YAMLError(f"it has a number of {len(node.value):,} digits, expected {MAX_DIGITS} at most")
        return int(super().construct_yaml_int(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


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
    except Exception as error:  # PyYAML raises nearly anything on a tag that does not fit: KeyError, IndexError ...
        raise ValueError(f"a value is not what its tag says: {error or type(error).__name__}") from error
