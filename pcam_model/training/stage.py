"""The two stages of a training: the frozen network's head, then the fine-tuning of the whole network."""

from typing import Annotated, Any, Literal

from pydantic import Field

from pcam_model.core.errors import ConfigError
from pcam_model.core.schema import Config, Record
from pcam_model.core.stage_names import STAGE_NAMES, StageName
from pcam_model.data.augment import ViewConfig
from pcam_model.training.ema import WeightEMA
from pcam_model.training.network import PatchNetwork
from pcam_model.training.optimizer import FROZEN_LR_MULTIPLIERS, layer_lr_multipliers


class StageConfig(Config):
    """Keys of both stages."""

    epochs: int = Field(30, ge=0, le=10_000)
    """Epochs of the one-cycle schedule; 0 leaves the stage out."""
    batch_size: Literal["auto"] | Annotated[int, Field(ge=2, le=65_536)] = 64
    """Patches per step, computed in microbatches where memory is short; auto: the largest power of two that fits, 1,024
    at most. Patches that fill no batch at the end of an epoch are left for another epoch."""
    lr: Literal["find"] | Annotated[float, Field(gt=0, le=100)] = "find"
    """Maximum learning rate of the cycle, or `find`."""
    stain_jitter: float = Field(0, ge=0, le=1)
    """Stain jitter: haematoxylin and eosin of each patch are scaled by 1 +- stain_jitter; 0.05 is light, 0.2 strong."""
    label_smoothing: float = Field(0, ge=0, lt=1)
    """Label smoothing: the fraction of each label's weight that is spread over both classes."""
    max_grad_norm: float = Field(0, ge=0)
    """Gradients are clipped to this L2 norm. 0: no clipping."""
    early_stopping_patience: int = Field(0, ge=0)
    """End the stage after this many epochs in a row without a better validation AUC, with the weights of its best
    epoch. 0: no early stopping. The validation split has chosen then, so a test split must be there to report on."""


class FrozenConfig(StageConfig):
    """Training of the head on a frozen body."""

    batchnorm: Literal["train", "fixed"] = "train"
    """train: the body's BatchNorm layers are trained too, as in the recipe; fixed: no backward pass through the
    body."""


class FinetuneConfig(StageConfig):
    """Fine-tuning of the whole network, with discriminative learning rates."""

    lr_ratio: float = Field(10, ge=1, le=10_000)
    """The first layer group's learning rate is lr / lr_ratio; the middle one's lies between, geometrically."""
    no_warp_fraction: float = Field(0.3, ge=0, le=1)
    """Fraction of the steps, at the end, that sees patches without warp and rotation, as sharp as in prediction; the
    recipe has 0."""
    ema_fraction: float = Field(0.2, ge=0, le=1)
    """Fraction of the steps over which the weights are averaged (exponential moving average); the recipe has 0:
    none."""
    progressive_sizes: tuple[Annotated[int, Field(ge=32, le=1024)], ...] = ()
    """Progressive resizing: image sizes, in pixels, with which the stage begins, each for an equal number of steps; the
    last steps have model.image_size. [96, 96] at model.image_size=160 trains two thirds of the steps at 96."""


class Stage(Record):
    """A stage's name and configuration, and what its checkpoints depend on."""

    name: StageName
    config: FrozenConfig | FinetuneConfig
    identity: dict[str, Any] = Field(default_factory=dict)
    """What a checkpoint must agree with to be resumed."""

    def with_inputs(self, inputs: dict[str, Any]) -> "Stage":
        """The stage whose checkpoints depend on `inputs` (digests) and on its configuration."""
        return self.model_copy(update={"identity": {**inputs, "config": self.config.model_dump(mode="json")}})

    @property
    def number(self) -> int:
        """The stage's number in RNG keys, from 1."""
        return STAGE_NAMES.index(self.name) + 1

    @property
    def lr_multipliers(self) -> list[float]:
        """Each layer group's factor to the learning rate."""
        if isinstance(self.config, FinetuneConfig):
            return layer_lr_multipliers(self.config.lr_ratio)
        return FROZEN_LR_MULTIPLIERS

    def make_ema(self, network: PatchNetwork, steps: int) -> WeightEMA | None:
        """The moving average of the weights in a stage of so many steps; None where the configuration has none."""
        fraction = self.config.ema_fraction if isinstance(self.config, FinetuneConfig) else 0
        return WeightEMA(network, fraction * steps) if fraction else None

    def view_config(self, step: int, steps: int, image_size: int) -> ViewConfig:
        """How patches are augmented at a step of so many; `image_size`: the network's at the end, in pixels."""
        if not isinstance(self.config, FinetuneConfig):
            return ViewConfig(image_size, stain_jitter=self.config.stain_jitter)
        sizes = (*self.config.progressive_sizes, image_size)
        no_warp = step >= steps * (1 - self.config.no_warp_fraction)
        return ViewConfig(sizes[step * len(sizes) // steps], no_warp, self.config.stain_jitter)

    @property
    def batch_size(self) -> int:
        """Patches per step. Raises ConfigError where it is still to be chosen."""
        if self.config.batch_size == "auto":
            raise ConfigError(f"{self.name}.batch_size is auto and was not chosen; run the flow, or give a number")
        return self.config.batch_size

    def with_batch_size(self, batch_size: int) -> "Stage":
        """The stage with another batch size."""
        return self.model_copy(update={"config": self.config.model_copy(update={"batch_size": batch_size})})

    def prepare(self, network: PatchNetwork) -> PatchNetwork:
        """Freeze or unfreeze the network as the stage needs it."""
        if isinstance(self.config, FrozenConfig):
            network.freeze(self.config.batchnorm)
        else:
            network.unfreeze()
        return network

    def steps_per_epoch(self, patches: int) -> int:
        """Whole batches in an epoch of so many patches. Raises ConfigError where there is none."""
        if patches < self.batch_size:
            raise ConfigError(
                f"{self.name}.batch_size is {self.batch_size}, but the training split has only {patches} patches; "
                f"set {self.name}.batch_size to {patches} or less, or train on more patches"
            )
        return patches // self.batch_size
