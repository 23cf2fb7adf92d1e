"""The two stages: frozen training of the head, fine-tuning of the whole network."""

from typing import Annotated, Any, Literal

from pydantic import Field

from pcam_model.core.errors import ConfigError
from pcam_model.core.schema import Config, Record
from pcam_model.data.augment import ViewConfig
from pcam_model.training.ema import WeightEMA
from pcam_model.training.network import PatchNetwork
from pcam_model.training.optimizer import FROZEN, layer_lr_multipliers

StageName = Literal["frozen", "finetune"]
NUMBERS: dict[StageName, int] = {"frozen": 1, "finetune": 2}


class StageConfig(Config):
    """What both stages are asked."""

    epochs: int = Field(30, ge=0, le=10_000)
    """Epochs of one cycle; 0 leaves the stage out."""
    batch_size: Literal["auto"] | Annotated[int, Field(ge=2, le=65_536)] = 64
    """Patches a step, computed in parts where memory is short; auto: the largest power of two that fits, 1,024 at most.
    The rest of an epoch that fills no batch is left for another epoch."""
    lr: Literal["find"] | Annotated[float, Field(gt=0, le=100)] = "find"
    """The highest learning rate of the cycle, or `find`."""
    stain_jitter: float = Field(0, ge=0, le=1)
    """Stain jitter: haematoxylin and eosin of each patch 1 +- stain times as strong; 0.05 is light, 0.2 strong."""
    label_smoothing: float = Field(0, ge=0, lt=1)
    """Label smoothing: the share of each label's weight that is spread over both classes."""
    max_grad_norm: float = Field(0, ge=0)
    """Largest norm of a step's gradient; a longer one is shortened to it. 0: none is."""
    early_stopping_patience: int = Field(0, ge=0)
    """Epochs in a row without a better validation AUC that end the stage, which then leaves its best epoch. 0: none do.
    The validation part has chosen then, so a test part must be there to report on."""


class FrozenConfig(StageConfig):
    """The head learns, the body's weights stay."""

    batchnorm: Literal["train", "fixed"] = "train"
    """train: the body's BatchNorm layers learn too, as in the recipe; fixed: no pass backward through the body."""


class FinetuneConfig(StageConfig):
    """The whole network learns, with discriminative rates."""

    lr_ratio: float = Field(10, ge=1, le=10_000)
    """The lowest layer group's rate is rate / spread; the middle one's lies between, geometrically."""
    no_warp_fraction: float = Field(0.3, ge=0, le=1)
    """Share of the steps, at the end, that sees patches unwarped, as sharp as they will be seen; the recipe has 0."""
    ema_fraction: float = Field(0.2, ge=0, le=1)
    """Share of the steps over which the weights are averaged (an exponential mean); the recipe has 0: none."""
    progressive_sizes: tuple[Annotated[int, Field(ge=32, le=1024)], ...] = ()
    """Progressive resizing: sides, in pixels, at which the stage begins, each for an equal share of the steps; the last
    share sees model.image_size. [96, 96] at model.image_size=160 trains two thirds of the steps at 96."""


class Stage(Record):
    """One stage, ready to be searched for or trained."""

    name: StageName
    config: FrozenConfig | FinetuneConfig
    identity: dict[str, Any] = {}
    """What a checkpoint must agree with to be gone on from: all that the stage rests on."""

    def resting_on(self, inputs: dict[str, Any]) -> "Stage":
        """The same stage, which goes on only from checkpoints that rest on the same."""
        return self.model_copy(update={"identity": {**inputs, "config": self.config.model_dump(mode="json")}})

    @property
    def number(self) -> int:
        """Its place in the order of randomness."""
        return NUMBERS[self.name]

    @property
    def multipliers(self) -> list[float]:
        """Each layer group's share of the rate."""
        return layer_lr_multipliers(self.config.lr_ratio) if isinstance(self.config, FinetuneConfig) else FROZEN

    def ema(self, network: PatchNetwork, steps: int) -> WeightEMA | None:
        """The mean of the weights that a stage of so many steps leaves, where the config asks for one."""
        share = self.config.ema_fraction if isinstance(self.config, FinetuneConfig) else 0
        return WeightEMA(network, share * steps) if share else None

    def view_config(self, step: int, steps: int, size: int) -> ViewConfig:
        """How patches are seen at a step of so many, by a network that in the end sees `size` pixels a side."""
        if not isinstance(self.config, FinetuneConfig):
            return ViewConfig(size, stain=self.config.stain_jitter)
        progressive_sizes = (*self.config.progressive_sizes, size)
        no_warp_fraction = step >= steps * (1 - self.config.no_warp_fraction)
        return ViewConfig(
            progressive_sizes[step * len(progressive_sizes) // steps], no_warp_fraction, self.config.stain_jitter
        )

    @property
    def batch_size(self) -> int:
        """Patches a step."""
        if self.config.batch_size == "auto":
            raise ConfigError(f"{self.name}.batch is auto and nobody has chosen it; run the flow, or give a number")
        return self.config.batch_size

    def with_batch(self, batch_size: int) -> "Stage":
        """The same stage with its batch chosen."""
        return self.model_copy(update={"config": self.config.model_copy(update={"batch": batch_size})})

    def prepare(self, network: PatchNetwork) -> PatchNetwork:
        """Freeze or unfreeze what this stage does."""
        if isinstance(self.config, FrozenConfig):
            network.freeze(self.config.batchnorm)
        else:
            network.unfreeze()
        return network

    def steps_per_epoch(self, patches: int) -> int:
        """Whole batches in an epoch of so many patches.

        Raises:
            ConfigError: not even one.
        """
        if patches < self.batch_size:
            raise ConfigError(
                f"{self.name}.batch is {self.batch_size}, but the training part has only {patches} patches; "
                f"set {self.name}.batch to {patches} or less, or train on more patches"
            )
        return patches // self.batch_size
