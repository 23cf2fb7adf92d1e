import pytest
import torch
from torch import nn

from pcam_model.training.network import BODIES, ModelConfig, PatchNetwork, build_network
from pcam_model.training.optimizer import FROZEN_LR_MULTIPLIERS, layer_lr_multipliers, make_optimizer, set_lr


def counts(network: PatchNetwork) -> list[int]:
    return [sum(p.numel() for m in group for p in m.parameters(recurse=False)) for group in network.layer_groups()]


def test_resnet50_has_the_recipes_groups_and_head() -> None:
    assert counts(PatchNetwork("resnet50")) == [1_444_928, 22_063_104, 2_107_392]


@pytest.mark.parametrize("arch", BODIES)
def test_every_network_gives_two_logits_and_its_groups_hold_each_parameter_once(arch: str) -> None:
    network = PatchNetwork(arch).eval()
    assert sum(counts(network)) == sum(p.numel() for p in network.parameters())
    assert min(counts(network)) > 0
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 2)


def test_frozen_only_the_head_and_the_batchnorms_are_trainable(network: PatchNetwork) -> None:
    network.freeze("train")
    trainable = {name for name, p in network.named_parameters() if p.requires_grad}
    norms = {
        f"{module_name}.{name}"
        for module_name, module in network.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for name in ("weight", "bias")
    }
    assert trainable == norms | {f"head.{name}" for name, _ in network.head.named_parameters()}


def test_a_fixed_body_keeps_its_running_statistics_and_gets_no_gradient(network: PatchNetwork) -> None:
    network.freeze("fixed")
    before = {name: t.clone() for name, t in network.body.state_dict().items()}
    network.train()
    network(torch.randn(4, 3, 32, 32))[:, 0].sum().backward()
    assert all(torch.equal(before[name], t) for name, t in network.body.state_dict().items())
    assert all(p.grad is None for p in network.body.parameters())
    assert all(p.grad is not None for p in network.head.parameters())


def test_a_frozen_body_with_trainable_batchnorms_moves_its_statistics(network: PatchNetwork) -> None:
    network.freeze("train")
    before = network.body.bn1.running_mean.clone()  # type: ignore[union-attr, operator]
    network.train()
    network(torch.randn(4, 3, 32, 32))
    assert not torch.equal(before, network.body.bn1.running_mean)  # type: ignore[union-attr, arg-type]


def test_the_same_seed_gives_the_same_network_and_leaves_the_random_state(network: PatchNetwork) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    again = build_network(ModelConfig(arch="resnet18", weights="none", image_size=32), seed=1, quiet=True)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


def test_learning_rates_are_geometric_over_the_groups() -> None:
    assert layer_lr_multipliers(10) == pytest.approx([0.1, 10**-0.5, 1])


def test_weight_decay_spares_norms_and_biases_and_learning_rates_follow_the_groups(network: PatchNetwork) -> None:
    network.unfreeze()
    optimizer = make_optimizer(network, FROZEN_LR_MULTIPLIERS)
    set_lr(optimizer, 0.01, 0.9)
    decayed = {id(p) for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]}
    for module in network.modules():
        for parameter in module.parameters(recurse=False):
            matrix = isinstance(module, nn.Conv2d | nn.Linear) and parameter is module.weight
            assert (id(parameter) in decayed) == matrix
    assert {g["lr"] for g in optimizer.param_groups} == {0.001, 0.01}
    assert {g["betas"] for g in optimizer.param_groups} == {(0.9, 0.99)}
