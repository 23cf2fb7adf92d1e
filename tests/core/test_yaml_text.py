"""YAML that is damaged, hostile or of odd tags is a ValueError with one reason, and a config's error one sentence."""

from pathlib import Path

import pytest

from pcam_model.config_reader import read_config
from pcam_model.core.errors import ConfigError
from pcam_model.core.yaml_text import parse_yaml

ODD = {
    "deep lists": "[" * 100_000,
    "deep blocks": "".join(f"{' ' * i}a:\n" for i in range(500)),
    "a boolean that is none": "a: !!bool maybe",
    "a number without digits": "a: !!int ''",
    "a float that is none": "a: !!float x",
    "a time that is none": "a: !!timestamp x",
    "a date that is none": "a: 2020-99-99",
    "a long number": "a: 0x" + "f" * 10_000,
    "a long number in base 60": "a: " + ":".join(["59"] * 80_000),
    "bytes that are none": "a: !!binary é",
    "an object": "a: !!python/object/apply:os.system [ls]",
    "a list as key": "? [a]\n: b",
    "zeros": "\0\0",
    "an alias": "a: &x [1]\nb: *x",
}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_odd_yaml_is_one_reason(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"c\.yaml cannot be read"):
        read_config(tmp_path / "c.yaml")


@pytest.mark.parametrize("text", ["1: 2", "null: 1", "seed: {a: {b: [1]}}", "seed: 1e400", "seed: .nan", "run: [x]"])
def test_a_config_of_other_keys_or_values_is_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match="the config"):
        read_config(tmp_path / "c.yaml")
