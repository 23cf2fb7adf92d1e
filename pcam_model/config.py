"""`TrainConfig`: every key of a training run, with its default, its range and its meaning."""

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from pcam_model.core.schema import Config
from pcam_model.data.quality import DataChecksConfig
from pcam_model.data.source import SourceConfig
from pcam_model.data.split import SplitConfig
from pcam_model.evaluation.evidence import ScoreConfig
from pcam_model.registry.config import StoreConfig
from pcam_model.training.device import ComputeConfig
from pcam_model.training.lr_finder import LrFinderConfig
from pcam_model.training.network import ModelConfig
from pcam_model.training.stage import FinetuneConfig, FrozenConfig

RESULT_COMPUTE_KEYS = {"precision", "deterministic", "compile"}


class TrainConfig(Config):
    """The configuration of a training run: what `pcam train` and the flow `pcam` take."""

    source: SourceConfig = SourceConfig()
    """The patches to train on."""
    data_checks: DataChecksConfig = DataChecksConfig()
    """Limits that the patches are checked against before training."""
    split: SplitConfig = SplitConfig()
    """How the labelled patches are divided into train, valid and test."""
    model: ModelConfig = ModelConfig()
    """The network and its initial weights."""
    lr_finder: LrFinderConfig = LrFinderConfig()
    """The LR range test, for each stage whose `lr` is `find`."""
    frozen: FrozenConfig = FrozenConfig()
    """First stage: the head is trained, the body's weights are frozen."""
    finetune: FinetuneConfig = FinetuneConfig()
    """Second stage: the whole network is trained, with discriminative learning rates."""
    compute: ComputeConfig = ComputeConfig()
    """Precision, processes and checkpoints."""
    score: ScoreConfig = ScoreConfig()
    """How the trained network is evaluated."""
    store: StoreConfig = StoreConfig()
    """Where the run is published."""
    run: str = ""
    """The run's name; started again under the same name, a run continues. Empty: a name is generated."""
    seed: int = Field(2, ge=0, lt=2**32)
    """Seed of all random numbers but the split's."""

    @model_validator(mode="after")
    def _trains_something(self) -> "TrainConfig":
        if self.frozen.epochs + self.finetune.epochs == 0:
            raise ValueError(
                "frozen.epochs and finetune.epochs are both 0, so nothing would be trained; raise one of them"
            )
        return self

    @model_validator(mode="after")
    def _stops_early_only_with_a_test_split(self) -> "TrainConfig":
        stops = max(self.frozen.early_stopping_patience, self.finetune.early_stopping_patience)
        if stops and not self.split.has_test and self.split.kind != "official":
            raise ValueError(
                "early_stopping_patience lets the validation split choose where training stops, so figures on it would "
                "flatter; give a test split to report on (split.test=0.1, or split.kind=leave_one_domain_out), or "
                "split.kind=official where the patches bring one"
            )
        return self

    def result_keys(self) -> dict[str, Any]:
        """The keys that decide the result: without paths (digests stand for them), the store and the run's name."""
        other = set(ComputeConfig.model_fields) - RESULT_COMPUTE_KEYS
        keys = self.model_dump(mode="json", exclude={"store": True, "run": True, "source": {"path"}, "compute": other})
        if not self.split.domain:
            del keys["split"]["domain"]  # a run that was started before there was this key is gone on with
        if self.score.prevalence is None:
            del keys["score"]["prevalence"]
        keys["source"]["slides"] = Path(self.source.slides).name
        keys["model"]["weights"] = Path(self.model.weights).name
        return keys
