import importlib
from pathlib import Path

import pytest
import yaml

from pcam_model.config import TrainConfig
from pcam_model.config_reader import parse_source, read_config, validate_config
from pcam_model.core.errors import ConfigError

PLANS = Path(__file__).parents[1] / "deployments" / "configs"


@pytest.mark.parametrize("path", sorted(PLANS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_ready_plan_is_a_plan(path: Path) -> None:
    assert isinstance(read_config(path), TrainConfig)


def test_the_recipe_is_the_published_one() -> None:
    config = read_config(PLANS / "recipe.yaml")
    assert (config.model.arch, config.model.weights, config.model.image_size) == ("resnet50", "imagenet", 224)
    assert (config.frozen.epochs, config.finetune.epochs, config.frozen.batch_size, config.finetune.batch_size) == (
        30,
        30,
        64,
        64,
    )
    assert (config.split.kind, config.split.valid, config.finetune.spread) == ("random", 0.2, 10)


def test_settings_win_over_the_file_and_keywords_over_settings(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("finetune: {epochs: 5, batch: 32}\nseed: 9\n")
    config = read_config(tmp_path / "p.yaml", ["finetune.epochs=3", "frozen.lr=1e-2", "run=x"], run="y")
    assert (config.finetune.epochs, config.finetune.batch, config.seed) == (3, 32, 9)
    assert (config.frozen.lr, config.run) == (0.01, "y")


def test_a_source_is_a_kind_or_a_path(tmp_path: Path) -> None:
    assert parse_source("sample") == {"kind": "sample", "path": ""}
    assert parse_source(str(tmp_path / "a.zip")) == {"kind": "path", "path": str(tmp_path / "a.zip")}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("finetune.epoch=3", "the config has no key finetune.epoch; did you mean finetune.epochs?"),
        ("colour=red", "the config has no key colour"),
        ("finetune.epochs=many", "finetune.epochs is 'many'"),
        ("finetune.lr=fast", "finetune.lr is 'fast'"),
        ("finetune.lr=-1", "finetune.lr is -1"),
        ("model.arch=vgg", "model.arch is 'vgg'"),
        ("split.valid=1.5", "split.valid is 1.5"),
        ("finetune=3", "finetune is 3"),
        ("finetune.epochs", "write a key of the config and its value"),
        ("=3", "write a key of the config and its value"),
        ("seed=[", "seed is '['"),
    ],
)
def test_a_wrong_setting_is_named(setting: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(sets=[setting])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["- a\n", "finetune: {epochs\n", "\x00"])
def test_a_file_that_is_no_plan_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ConfigError, match="p.yaml"):
        read_config(tmp_path / "p.yaml")


def test_a_missing_plan_and_one_that_trains_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="both 0"):
        validate_config({"frozen": {"epochs": 0}, "finetune": {"epochs": 0}})


def test_stopping_early_wants_a_part_that_chose_nothing() -> None:
    with pytest.raises(ConfigError, match="split.test"):
        validate_config({"finetune": {"patience": 2}})
    assert validate_config({"finetune": {"patience": 2}, "split": {"test": 0.1}}).finetune.patience == 2
    assert validate_config({"frozen": {"patience": 1}, "split": {"kind": "official"}}).frozen.patience == 1


def test_the_flow_takes_exactly_the_plans_keys() -> None:
    flow = importlib.import_module("flows.full_train").full_train
    assert list(flow.parameters.properties) == list(TrainConfig.model_fields)
    for name in TrainConfig.model_fields:
        assert name in flow.parameters.properties


def test_every_key_has_a_default_and_a_word_of_help() -> None:
    for name, field in TrainConfig.model_fields.items():
        assert not field.is_required(), name
        inner = getattr(field.annotation, "model_fields", {})
        for key, one in inner.items():
            assert not one.is_required() and one.description, f"{name}.{key}"


def test_a_plan_survives_yaml() -> None:
    config = read_config(PLANS / "recipe.yaml")
    assert validate_config(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))) == config
