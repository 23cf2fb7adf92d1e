"""AdamW over the layer groups, with discriminative learning rates."""

import torch
from torch import nn

from pcam_model.training.network import PatchNetwork

WEIGHT_DECAY = 1e-2
BETA2, EPS = 0.99, 1e-5  # as in fastai 2
FROZEN_LR_MULTIPLIERS = [0.1, 0.1, 1.0]  # as in fastai where one rate is given for a frozen network


def make_optimizer(network: PatchNetwork, lr_multipliers: list[float]) -> torch.optim.AdamW:
    """AdamW on all trainable parameters, with weight decay on neither norms nor biases.

    Args:
        network: frozen or not; parameters that need no gradient are left out.
        lr_multipliers: each layer group's factor to the learning rate, from input to output.
    """
    groups = []
    for modules, multiplier in zip(network.layer_groups(), lr_multipliers, strict=True):
        parameters = [p for module in modules for p in module.parameters(recurse=False) if p.requires_grad]
        for weight_decay, is_decayed in ((WEIGHT_DECAY, True), (0.0, False)):
            members = [p for p in parameters if _is_decayed(p) == is_decayed]
            if members:
                groups.append({"params": members, "weight_decay": weight_decay, "lr_multiplier": multiplier})
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.95, BETA2), eps=EPS, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float, momentum: float) -> None:
    """Set each group's learning rate to its factor times `lr`, and the first beta of all to `momentum`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_multiplier"]
        group["betas"] = (momentum, BETA2)


def layer_lr_multipliers(ratio: float, groups: int = 3) -> list[float]:
    """Discriminative learning rates: geometric from 1 / ratio (input) to 1 (head); 10 gives 0.1, 0.316, 1."""
    return [float(ratio ** ((i - groups + 1) / (groups - 1))) for i in range(groups)]


def _is_decayed(parameter: nn.Parameter) -> bool:
    return parameter.squeeze().ndim > 1
