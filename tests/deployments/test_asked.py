"""What a user asks of `make train` becomes the flow's parameters."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pcam_model.core.errors import ConfigError, PcamError, SourceError


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    content = {"source": {"kind": "sample", "limit": 10}, "finetune": {"epochs": 1}, "run": "", "seed": 2}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    return "config.yaml"


def ask(config: str, **words: str) -> dict[str, Any]:
    from deployments.local.asked import parameters

    return parameters(config, **words)


def test_what_is_set_by_hand_wins_over_the_plan_and_keeps_the_rest(config: str) -> None:
    asked = ask(config, settings="finetune.epochs=3 finetune.lr=1e-4 model.arch=mobilenet_v2 seed=4", run="mine")
    assert (asked["finetune"]["epochs"], asked["finetune"]["rate"], asked["network"]["name"]) == (
        3,
        1e-4,
        "mobilenet_v2",
    )
    assert (asked["seed"], asked["run"], asked["source"]["limit"]) == (4, "mine", 10)


def test_every_path_is_absolute_since_a_worker_starts_elsewhere(config: str, tmp_path: Path) -> None:
    for name in ("a.zip", "w.pth", "slides.csv"):
        (tmp_path / name).touch()
    asked = ask(config, source="./a.zip", settings="model.weights=w.pth source.slides=slides.csv", store="my store")
    assert (asked["source"]["kind"], asked["source"]["path"]) == ("path", str(tmp_path / "a.zip"))
    assert asked["source"]["slides"] == str(tmp_path / "slides.csv")
    assert asked["network"]["weights"] == str(tmp_path / "w.pth")
    assert asked["store"]["uri"] == (tmp_path / "my store").as_uri()


def test_names_that_are_no_paths_stay_as_they_are(config: str) -> None:
    asked = ask(config, source="kaggle", settings="model.weights=imagenet", store="s3://bucket/pcam")
    assert (asked["source"]["kind"], asked["source"]["path"]) == ("kaggle", "")
    assert (asked["network"]["weights"], asked["store"]["uri"]) == ("imagenet", "s3://bucket/pcam")


@pytest.mark.parametrize(
    ("words", "kind", "named"),
    [
        ({"source": "no.zip"}, SourceError, "source.path"),
        ({"settings": "model.weights=no.pth"}, SourceError, "model.weights"),
        ({"settings": "finetune.epochs"}, ConfigError, "finetune.epochs"),
        ({"settings": "finetune.epocs=1"}, ConfigError, "finetune.epocs"),
        ({"settings": "run='"}, ConfigError, "SET="),
    ],
)
def test_a_mistake_is_one_sentence_that_names_it(
    config: str, words: dict[str, str], kind: type[PcamError], named: str
) -> None:
    with pytest.raises(kind, match=".") as caught:
        ask(config, **words)
    assert named in str(caught.value) and "\n" not in str(caught.value)
