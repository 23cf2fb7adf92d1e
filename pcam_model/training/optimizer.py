"""AdamW over the layer groups, each with its own share of the rate."""

import torch
from torch import nn

from pcam_model.training.network import PatchNetwork

WEIGHT_DECAY = 1e-2
BETA2, EPS = 0.99, 1e-5  # fastai 2


def make_optimizer(network: PatchNetwork, multipliers: list[float]) -> torch.optim.AdamW:
    """AdamW on all that learns, with weight decay on neither norms nor biases.

    Args:
        network: frozen or not; what does not require a gradient is left out.
        multipliers: each layer group's share of the rate, from input to output.
    """
    groups = []
    for modules, multiplier in zip(network.layer_groups(), multipliers, strict=True):
        parameters = [p for module in modules for p in module.parameters(recurse=False) if p.requires_grad]
        for decay, chosen in ((WEIGHT_DECAY, True), (0.0, False)):
            members = [p for p in parameters if _decays(p) == chosen]
            if members:
                groups.append({"params": members, "weight_decay": decay, "multiplier": multiplier})
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.95, BETA2), eps=EPS, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float, momentum: float) -> None:
    """The highest group gets `rate`, the others their share of it."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["multiplier"]
        group["betas"] = (momentum, BETA2)


def layer_lr_multipliers(ratio: float, groups: int = 3) -> list[float]:
    """Discriminative rates: geometric from 1 / ratio (input) to 1 (head); 10 gives 0.1, 0.316, 1."""
    return [float(ratio ** ((i - groups + 1) / (groups - 1))) for i in range(groups)]


FROZEN = [0.1, 0.1, 1.0]  # fastai's meaning of one rate for a frozen network


def _decays(parameter: nn.Parameter) -> bool:
    return parameter.squeeze().ndim > 1
