"""The configuration: presets, files and settings, their mistakes, and the documentation of every key."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import yaml
from typer.testing import CliRunner

from docs.generate import cli_page, configuration_page
from pcam_model.cli.main import app
from pcam_model.config import TrainConfig
from pcam_model.config_docs import commented_yaml, key_docs
from pcam_model.config_reader import PRESETS, override_preset, parse_source, read_config, validate_config
from pcam_model.core.errors import ConfigError
from pcam_model.presets import PresetName

DOCS = Path(__file__).parents[1] / "docs"


def pcam(*words: str) -> str:
    done = CliRunner().invoke(app, [*words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_a_configuration_and_is_printed_as_a_file_that_gives_it_back(preset: str, tmp_path: Path) -> None:
    config = read_config(preset=preset)
    (tmp_path / "printed.yaml").write_text(pcam("config", preset))
    assert read_config(tmp_path / "printed.yaml") == config
    assert validate_config(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))) == config


def test_the_recipe_is_the_published_one() -> None:
    config = read_config(preset="recipe")
    assert (config.model.arch, config.model.weights, config.model.image_size) == ("resnet50", "imagenet", 224)
    assert (config.frozen.epochs, config.finetune.epochs) == (30, 30)
    assert (config.frozen.batch_size, config.finetune.batch_size) == (64, 64)
    assert (config.split.kind, config.split.valid, config.finetune.lr_ratio) == ("random", 0.2, 10)


def test_each_of_preset_file_settings_and_keywords_overrides_those_before_it(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("finetune: {epochs: 5, batch_size: 32}\nseed: 9\n")
    config = read_config(tmp_path / "p.yaml", ["finetune.epochs=3", "frozen.lr=1e-2", "run=x"], preset="quick", run="y")
    assert (config.finetune.epochs, config.finetune.batch_size, config.seed) == (3, 32, 9)
    assert (config.frozen.lr, config.run, config.model.arch) == (0.01, "y", "mobilenet_v2")


def test_a_key_that_is_set_never_loses_the_presets_other_keys() -> None:
    quick = read_config(preset="quick")
    config = override_preset("quick", TrainConfig.model_validate({"finetune": {"epochs": 7}}))
    assert config == quick.model_copy(update={"finetune": quick.finetune.model_copy(update={"epochs": 7})})
    assert override_preset(None, config) is config


def test_a_source_is_a_kind_a_path_or_an_address(tmp_path: Path) -> None:
    assert parse_source("sample") == {"kind": "sample", "path": ""}
    assert parse_source(str(tmp_path / "a.zip")) == {"kind": "path", "path": str(tmp_path / "a.zip")}
    for address in ("https://host/pcam", "s3://bucket/a.zip"):
        assert parse_source(address) == {"kind": "path", "path": address}
    for address in (f"file://{tmp_path}/a%20b.zip", f"file:{tmp_path}/a b.zip"):
        assert parse_source(address) == {"kind": "path", "path": f"{tmp_path}/a b.zip"}
    for address in ("s3:/bucket/a.zip", "s3//bucket/a.zip", "ftp://host/a.zip"):
        with pytest.raises(ConfigError, match="expected sample, kaggle, a path"):
            parse_source(address)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("finetune.epoch=3", "the config has no key finetune.epoch; did you mean finetune.epochs?"),
        ("lr=3", "the config has no key lr; did you mean frozen.lr or finetune.lr?"),
        ("colour=red", "the config has no key colour"),
        ("finetune.epochs=many", "finetune.epochs is 'many', expected 0 to 10000"),
        ("finetune.lr=fast", "finetune.lr is 'fast', expected find, or more than 0, at most 100"),
        ("finetune.lr=-1", "finetune.lr is -1, expected find, or more than 0, at most 100"),
        ("frozen.batch_size=1", "frozen.batch_size is 1, expected auto, or 2 to 65536"),
        ("finetune.progressive_sizes=[96, 8]", "finetune.progressive_sizes is 8, expected a list, each 32 to 1024"),
        ("model.arch=vgg", "model.arch is 'vgg', expected resnet18, resnet34"),
        ("model.arch=timm:hf-hub:a/b", "model.arch is 'timm:hf-hub:a/b', expected resnet18, resnet34"),
        ("model.arch=timm:", "convnext_tiny, or timm:NAME"),
        ("split.valid=1.5", "split.valid is 1.5, expected more than 0, at most 0.5"),
        ("source.max_patches=0", "source.max_patches is 0, expected null, or at least 2"),
        ("finetune=3", "finetune is 3, expected keys like"),
        ("finetune.epochs", "write a key and its value"),
        ("=3", "write a key and its value"),
        ("seed=[", "seed is '['"),
    ],
)
def test_a_wrong_setting_is_named_once_with_what_was_expected(setting: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(settings=[setting])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).count("the config") <= 1


@pytest.mark.parametrize("text", ["- a\n", "finetune: {epochs\n", "\x00"])
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"p\.yaml"):
        read_config(tmp_path / "p.yaml")


def test_a_missing_file_an_unknown_preset_and_a_run_that_trains_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="no preset 'fast'; choose sample, quick, pcam, recipe"):
        read_config(preset="fast")
    with pytest.raises(ConfigError, match=r"^frozen\.epochs and finetune.epochs are both 0"):
        validate_config({"frozen": {"epochs": 0}, "finetune": {"epochs": 0}})


def test_early_stopping_needs_a_split_that_chose_nothing() -> None:
    early = {"early_stopping_patience": 2}
    with pytest.raises(ConfigError, match=r"split\.test"):
        validate_config({"finetune": early})
    assert validate_config({"finetune": early, "split": {"test": 0.1}}).finetune.early_stopping_patience == 2
    assert validate_config({"frozen": early, "split": {"kind": "official"}}).frozen.early_stopping_patience == 2


def test_the_flow_takes_the_configuration_as_one_parameter() -> None:
    flow = importlib.import_module("flows.full_train").full_train
    assert list(flow.parameters.properties) == ["config", "preset"]
    assert set(flow.parameters.definitions["TrainConfig"]["properties"]) == set(TrainConfig.model_fields)


def test_every_key_has_a_default_a_description_and_its_values() -> None:
    keys = list(key_docs())
    assert len(keys) > 50
    assert [key.name for key in keys if not (key.description and key.values)] == []
    TrainConfig()  # each has a default


def test_the_defaults_are_printed_with_every_keys_description() -> None:
    printed = pcam("config")
    assert printed == commented_yaml(TrainConfig(), "The defaults. Every key may be left out.")
    text = " ".join(line.strip().removeprefix("# ") for line in printed.splitlines())
    assert [key.name for key in key_docs() if key.description not in text] == []
    assert "Values: auto, or 2 to 65536. Default: 64." in text


def test_the_printed_configuration_takes_settings_and_has_a_schema_and_json(tmp_path: Path) -> None:
    assert "\n  epochs: 9\n" in pcam("config", "quick", "--set", "finetune.epochs=9")
    assert json.loads(pcam("config", "quick", "--json"))["source"]["max_patches"] == 4000
    schema = json.loads(pcam("config", "--schema"))
    assert set(schema["properties"]) == set(TrainConfig.model_fields)
    assert schema["$defs"]["FinetuneConfig"]["properties"]["epochs"]["maximum"] == 10000


def test_the_names_of_presets_are_those_of_the_files() -> None:
    folder = Path(importlib.import_module("pcam_model.presets").__file__ or "").parent
    assert {path.stem for path in folder.glob("*.yaml")} == set(get_args(PresetName))


@pytest.mark.parametrize(("page", "generate"), [("configuration.md", configuration_page), ("cli.md", cli_page)])
def test_the_generated_pages_are_up_to_date(page: str, generate: Callable[[], str]) -> None:
    assert (DOCS / page).read_text("utf-8") == generate(), "run `python -m docs.generate`"
