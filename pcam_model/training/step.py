"""One optimizer step, and one pass of evaluation."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from pcam_model.data.batches import Batches
from pcam_model.randomness import at_place
from pcam_model.training.average import Average
from pcam_model.training.device import mixed
from pcam_model.training.network import PatchNetwork
from pcam_model.training.optimizer import set_rate

DROPOUT = 4  # what the randomness of a place is for


@dataclass
class TrainState:
    """All that changes while a stage is trained."""

    network: PatchNetwork
    optimizer: torch.optim.Optimizer
    step: int = 0
    """Optimizer steps taken in this stage."""
    average: Average | None = None
    """The mean of the weights, where the plan asks for one."""
    best: dict[str, Tensor] = field(default_factory=dict)
    """The weights of the best epoch so far, where the plan stops early."""


def loss_of(network: PatchNetwork, images: Tensor, labels: Tensor, *place: int, smoothing: float = 0.0) -> Tensor:
    """Cross entropy, a scalar on the device; `place` (seed, stage, epoch, step) decides what dropout drops."""
    with at_place(*place[:1], DROPOUT, *place[1:]), mixed(images.device):
        logits = network(images)
    return functional.cross_entropy(logits.float(), labels, label_smoothing=smoothing)


def train_step(
    state: TrainState,
    images: Tensor,
    labels: Tensor,
    rate: float,
    momentum: float,
    *place: int,
    smoothing: float = 0.0,
    clip: float = 0.0,
) -> Tensor:
    """One step down the cross entropy; returns its loss, a scalar left on the device.

    Args:
        state: changed in place.
        images: float (B, 3, S, S), normalised.
        labels: int64 (B,), 0 or 1.
        rate: of the highest layer group.
        momentum: AdamW's first beta.
        place: seed, stage, epoch, step.
        smoothing: share of each label's weight that is spread over both classes.
        clip: the gradient's largest norm; 0: any.
    """
    set_rate(state.optimizer, rate, momentum)
    loss = loss_of(state.network, images, labels, *place, smoothing=smoothing)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if clip:
        nn.utils.clip_grad_norm_(state.network.parameters(), clip)
    state.optimizer.step()
    state.step += 1
    if state.average:
        state.average.update(state.step)
    return loss.detach()


@torch.inference_mode()
def predict(network: PatchNetwork, part: Batches, batch: int = 64) -> Tensor:
    """Logits float32 (n, 2) of a whole part, on the host, computed in the device's fast numbers.

    Args:
        network: left in evaluation mode.
        part: read in its own order, without augmentation.
        batch: patches at a time; does not change the result beyond rounding.
    """
    network.eval()
    with mixed(part.device):
        logits = [network(images).float() for images, _ in part.in_order(batch)]
    return torch.cat(logits).cpu()
