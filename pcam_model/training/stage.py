"""The two stages: frozen training of the head, fine-tuning of the whole network."""

import math
from typing import Annotated, Any, Literal

from pydantic import Field

from pcam_model.errors import BadPlan
from pcam_model.records import Plan, Record
from pcam_model.training.average import Average
from pcam_model.training.network import PatchNetwork
from pcam_model.training.optimizer import FROZEN, spread

StageName = Literal["frozen", "tuned"]
NUMBERS: dict[StageName, int] = {"frozen": 1, "tuned": 2}


class StagePlan(Plan):
    """What both stages are asked."""

    epochs: int = Field(30, ge=0, le=10_000)
    """Epochs of one cycle; 0 leaves the stage out."""
    batch: int = Field(64, ge=2, le=65_536)
    """Patches a step; the rest of an epoch that fills no batch is left for another epoch."""
    rate: Literal["search"] | Annotated[float, Field(gt=0, le=100)] = "search"
    """The highest learning rate of the cycle, or `search`."""


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

    def calm_from(self, steps: int) -> float:
        """The step of so many from which patches are no longer rotated, zoomed and warped."""
        return steps * (1 - self.plan.calm) if isinstance(self.plan, TunedPlan) else math.inf

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
        if patches < self.plan.batch:
            raise BadPlan(
                f"{self.name}.batch is {self.plan.batch}, but the training part has only {patches} patches; "
                f"set {self.name}.batch to {patches} or less, or train on more patches"
            )
        return patches // self.plan.batch
