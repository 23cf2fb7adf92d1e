"""The two stages: frozen training of the head, fine-tuning of the whole network."""

from typing import Annotated, Any, Literal

from pydantic import Field

from pcam_model.data.augment import Sight
from pcam_model.core.errors import BadPlan
from pcam_model.core.schema import Plan, Record
from pcam_model.training.ema import Average
from pcam_model.training.network import PatchNetwork
from pcam_model.training.optimizer import FROZEN, spread

StageName = Literal["frozen", "tuned"]
NUMBERS: dict[StageName, int] = {"frozen": 1, "tuned": 2}


class StagePlan(Plan):
    """What both stages are asked."""

    epochs: int = Field(30, ge=0, le=10_000)
    """Epochs of one cycle; 0 leaves the stage out."""
    batch: Literal["auto"] | Annotated[int, Field(ge=2, le=65_536)] = 64
    """Patches a step, computed in parts where memory is short; auto: the largest power of two that fits, 1,024 at most.
    The rest of an epoch that fills no batch is left for another epoch."""
    rate: Literal["search"] | Annotated[float, Field(gt=0, le=100)] = "search"
    """The highest learning rate of the cycle, or `search`."""
    stain: float = Field(0, ge=0, le=1)
    """Stain jitter: haematoxylin and eosin of each patch 1 +- stain times as strong; 0.05 is light, 0.2 strong."""
    smoothing: float = Field(0, ge=0, lt=1)
    """Label smoothing: the share of each label's weight that is spread over both classes."""
    clip: float = Field(0, ge=0)
    """Largest norm of a step's gradient; a longer one is shortened to it. 0: none is."""
    patience: int = Field(0, ge=0)
    """Epochs in a row without a better validation AUC that end the stage, which then leaves its best epoch. 0: none do.
    The validation part has chosen then, so a test part must be there to report on."""


class FrozenPlan(StagePlan):
    """The head learns, the body's weights stay."""

    batchnorm: Literal["train", "fixed"] = "train"
    """train: the body's BatchNorm layers learn too, as in the recipe; fixed: no pass backward through the body."""


class TunedPlan(StagePlan):
    """The whole network learns, with discriminative rates."""

    spread: float = Field(10, ge=1, le=10_000)
    """The lowest layer group's rate is rate / spread; the middle one's lies between, geometrically."""
    calm: float = Field(0.3, ge=0, le=1)
    """Share of the steps, at the end, that sees patches unwarped, as sharp as they will be seen; the recipe has 0."""
    average: float = Field(0.2, ge=0, le=1)
    """Share of the steps over which the weights are averaged (an exponential mean); the recipe has 0: none."""
    sizes: tuple[Annotated[int, Field(ge=32, le=1024)], ...] = ()
    """Progressive resizing: sides, in pixels, at which the stage begins, each for an equal share of the steps; the last
    share sees network.size. [96, 96] at network.size=160 trains two thirds of the steps at 96."""


class Stage(Record):
    """One stage, ready to be searched for or trained."""

    name: StageName
    plan: FrozenPlan | TunedPlan
    identity: dict[str, Any] = {}
    """What a checkpoint must agree with to be gone on from: all that the stage rests on."""

    def resting_on(self, inputs: dict[str, Any]) -> "Stage":
        """The same stage, which goes on only from checkpoints that rest on the same."""
        return self.model_copy(update={"identity": {**inputs, "plan": self.plan.model_dump(mode="json")}})

    @property
    def number(self) -> int:
        """Its place in the order of randomness."""
        return NUMBERS[self.name]

    @property
    def multipliers(self) -> list[float]:
        """Each layer group's share of the rate."""
        return spread(self.plan.spread) if isinstance(self.plan, TunedPlan) else FROZEN

    def average(self, network: PatchNetwork, steps: int) -> Average | None:
        """The mean of the weights that a stage of so many steps leaves, where the plan asks for one."""
        share = self.plan.average if isinstance(self.plan, TunedPlan) else 0
        return Average(network, share * steps) if share else None

    def sight(self, step: int, steps: int, size: int) -> Sight:
        """How patches are seen at a step of so many, by a network that in the end sees `size` pixels a side."""
        if not isinstance(self.plan, TunedPlan):
            return Sight(size, stain=self.plan.stain)
        sizes = (*self.plan.sizes, size)
        calm = step >= steps * (1 - self.plan.calm)
        return Sight(sizes[step * len(sizes) // steps], calm, self.plan.stain)

    @property
    def batch(self) -> int:
        """Patches a step."""
        if self.plan.batch == "auto":
            raise BadPlan(f"{self.name}.batch is auto and nobody has chosen it; run the flow, or give a number")
        return self.plan.batch

    def with_batch(self, batch: int) -> "Stage":
        """The same stage with its batch chosen."""
        return self.model_copy(update={"plan": self.plan.model_copy(update={"batch": batch})})

    def prepare(self, network: PatchNetwork) -> PatchNetwork:
        """Freeze or unfreeze what this stage does."""
        if isinstance(self.plan, FrozenPlan):
            network.freeze(self.plan.batchnorm)
        else:
            network.unfreeze()
        return network

    def steps_an_epoch(self, patches: int) -> int:
        """Whole batches in an epoch of so many patches.

        Raises:
            BadPlan: not even one.
        """
        if patches < self.batch:
            raise BadPlan(
                f"{self.name}.batch is {self.batch}, but the training part has only {patches} patches; "
                f"set {self.name}.batch to {patches} or less, or train on more patches"
            )
        return patches // self.batch
