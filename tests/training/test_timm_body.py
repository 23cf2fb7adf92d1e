"""Networks of timm as bodies: the same groups and features as torchvision's, and every size, dropout and statistic."""

import sys
from pathlib import Path

import numpy as np
import pytest
import stages
import torch
from torch import Tensor, nn

from pcam_model.core.errors import ConfigError, Interrupted, MissingPackageError
from pcam_model.core.rng import StepKey
from pcam_model.training.auto_batch import bytes_per_patch
from pcam_model.training.batch import draw, set_masks
from pcam_model.training.depthwise import StridedDepthwise
from pcam_model.training.device import ComputeConfig
from pcam_model.training.layers import Dropout
from pcam_model.training.network import ModelConfig, PatchNetwork, build_network
from pcam_model.training.sync_batchnorm import HOST_LAYERS, convert_sync_batchnorm
from pcam_model.training.timm_body import TimmBody

timm = pytest.importorskip("timm", reason="pip install 'pcam[timm]' was not done")
NETWORKS = ["timm:test_resnet", "timm:test_efficientnet", "timm:test_vit", "timm:test_convnext", "timm:test_mambaout"]


def counts(network: PatchNetwork) -> list[int]:
    return [sum(p.numel() for m in group for p in m.parameters(recurse=False)) for group in network.layer_groups()]


def refusal(arch: str, image_size: int = 64) -> str:
    with pytest.raises(ConfigError) as caught:
        PatchNetwork(arch, image_size)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("arch", NETWORKS)
def test_a_body_gives_a_map_and_its_groups_hold_each_parameter_once(arch: str) -> None:
    network = PatchNetwork(arch, 64).eval()
    assert sum(counts(network)) == sum(p.numel() for p in network.parameters())
    assert min(counts(network)) > 0
    with torch.inference_mode():
        features = network.body(torch.randn(2, 3, 64, 64))
        assert features.shape == (2, network.spec.channels, *features.shape[-1:] * 2)
        assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 2)


@pytest.mark.parametrize(
    ("arch", "theirs"),
    [("resnet18", "resnet18"), ("mobilenet_v2", "mobilenetv2_100"), ("efficientnet_b0", "efficientnet_b0")],
)
def test_the_same_network_has_the_groups_of_torchvisions(arch: str, theirs: str) -> None:
    assert counts(PatchNetwork(arch)) == counts(PatchNetwork(f"timm:{theirs}"))


def test_the_same_weights_give_the_features_of_torchvisions() -> None:
    ours, theirs = PatchNetwork("resnet18").eval(), PatchNetwork("timm:resnet18").eval()
    theirs.body.net.load_state_dict(ours.body.state_dict())  # type: ignore[union-attr]
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(theirs.body(images), ours.body(images))


def test_images_are_normalised_as_the_network_was_trained() -> None:
    body = PatchNetwork("timm:test_vit", 64).body
    config = body.net.pretrained_cfg  # type: ignore[union-attr]
    assert (config["mean"], config["std"]) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    pixels, seen = torch.rand(1, 3, 64, 64), list[Tensor]()
    hook = body.net.patch_embed.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))  # type: ignore
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    body.eval()((pixels - mean) / std)
    hook.remove()
    torch.testing.assert_close(seen[0], 2 * pixels - 1)
    assert {"scale", "shift"} <= set(body.state_dict())
    assert "scale" not in PatchNetwork("timm:resnet18").body.state_dict()


def test_tokens_become_the_grid_of_the_patches_without_the_class_token() -> None:
    body = PatchNetwork("timm:test_vit", 64).body.eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        tokens = body.net.forward_features(images * body.scale + body.shift)  # type: ignore
        features = body(images)
    assert torch.equal(features[0, :, 1, 2], tokens[0, 1 + 4 + 2])


def test_a_transformer_takes_the_sizes_that_it_can_and_refuses_others_in_a_sentence() -> None:
    network = PatchNetwork("timm:test_vit", 64)
    network.check_image_sizes([32, 96])
    with pytest.raises(ConfigError, match=r"timm:test_vit does not take images of 72 x 72 pixels .*progressive_sizes"):
        network.check_image_sizes([72])
    assert "timm:test_vit does not take images of 72 x 72 pixels" in refusal("timm:test_vit", 72)


def test_a_misspelt_name_is_answered_with_the_nearest_and_a_tag_with_those_there_are() -> None:
    assert "no network 'resnett18'; did you mean timm:resnet18?" in refusal("timm:resnett18")
    assert "no weights 'nope' of resnet18; expected a1_in1k, " in refusal("timm:resnet18.nope")
    assert "see timm.list_models()" in refusal("timm:qqqqqqqqqqqqqqqqqqqqqqqqqq")


def test_statistics_that_a_skipped_step_could_not_undo_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    make = timm.create_model

    def make_with_momentum(*words: object, **options: object) -> nn.Module:
        network = make(*words, **{key: value for key, value in options.items() if key != "dynamic_img_size"})
        network.layer1[0].register_buffer("running_mean", torch.zeros(()))
        network.layer1[0].register_forward_pre_hook(lambda module, _: module.running_mean.add_(1) and None)
        return network

    monkeypatch.setattr(timm, "create_model", make_with_momentum)
    expected = "layer1.0.running_mean changes in training and is none of BatchNorm's statistics"
    assert expected in refusal("timm:test_resnet")


def test_a_network_that_draws_random_numbers_of_its_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(timm.create_model("test_resnet"))
    features = kind.forward_features
    monkeypatch.setattr(kind, "forward_features", lambda self, x: features(self, x) * torch.rand(()))
    assert "draws random numbers of its own" in refusal("timm:test_resnet")


def test_dropout_comes_from_masks_that_are_drawn_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    make = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: make(*a, **k, drop_path_rate=0.4, proj_drop_rate=0.3))
    network = PatchNetwork("timm:test_vit", 64)
    residual = [dropout for dropout in network.dropouts if dropout.columns == 1]
    assert [dropout.p for dropout in residual][-1] == pytest.approx(0.4)
    assert not any(m.p for m in network.body.modules() if isinstance(m, nn.Dropout))
    spec = stages.BatchSpec.whole(torch.arange(8), StepKey(1, 1, 1, 1), stages.ViewConfig(64))
    masks = draw(spec, network.dropouts, torch.device("cpu")).tensors[-len(network.dropouts) :]
    images, outputs = torch.randn(8, 3, 64, 64), list[Tensor]()
    for _ in range(2):
        set_masks(network, masks)
        outputs.append(network.train()(images))
    assert torch.equal(*outputs)
    assert not torch.equal(outputs[0], network.eval()(images))


def test_making_a_body_leaves_its_statistics_and_the_random_state() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    config = ModelConfig(arch="timm:test_resnet", weights="none", image_size=32)
    first, second = (build_network(config, 1, quiet=True) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert {int(t) for name, t in first.body.state_dict().items() if "num_batches" in name} == {0}
    assert not any(module.keep_mask is not None for module in first.modules() if isinstance(module, Dropout))


def test_what_timm_does_after_the_features_is_left_out() -> None:
    body = PatchNetwork("timm:mobilenetv3_small_050", 64).body
    assert isinstance(body, TimmBody)
    assert isinstance(body.net.conv_head, nn.Identity)
    assert body.channels == body.net.num_features


def test_microbatches_move_statistics_as_far_as_the_networks_own_momentum() -> None:
    network = PatchNetwork("timm:test_resnet", 32)
    network.unfreeze()
    layer = network.body.net.bn1  # type: ignore[union-attr]
    network.momenta = {name: 0.01 for name in network.momenta}
    network.set_microbatches(4)
    assert (1 - layer.momentum) ** 4 == pytest.approx(0.99)  # type: ignore[union-attr, operator]


def test_synchronised_layers_keep_their_activation(tmp_path: Path) -> None:
    network = PatchNetwork("timm:test_efficientnet", 64)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-1, 1)  # type: ignore[union-attr]
    images = torch.randn(2, 3, 64, 64)
    expected, names = network.eval()(images), set(network.state_dict())
    convert_sync_batchnorm(network, torch.device("cpu"))
    assert any(isinstance(module, HOST_LAYERS[1]) for module in network.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert set(network.state_dict()) == names
    torch.testing.assert_close(network.eval()(images), expected)


def test_strided_depthwise_convolutions_keep_their_own_padding() -> None:
    network = PatchNetwork("timm:tf_efficientnet_lite0", 64).eval()
    layers = [module for module in network.modules() if isinstance(module, StridedDepthwise)]
    assert [layer.stride for layer in layers] == [(2, 2)] * 4
    plain = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    plain.load_state_dict(network.body.net.state_dict())  # type: ignore[union-attr]
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        theirs = plain.forward_features(images * network.body.scale + network.body.shift)  # type: ignore[operator]
        torch.testing.assert_close(network.body(images), theirs)


@pytest.mark.parametrize("arch", ["timm:test_efficientnet", "timm:test_vit"])
def test_a_stopped_training_ends_with_the_bits_of_an_unbroken_one(tmp_path: Path, arch: str) -> None:
    for name in ("frozen", "finetune"):
        unbroken = stages.run(name, tmp_path / "unbroken" / name, stages.small_loader(), arch=arch)
        with pytest.raises(Interrupted):
            stages.run(name, tmp_path / name, stages.signalling_loader((4, 15)), ComputeConfig(), arch)
        torch.manual_seed(1)
        assert stages.run(name, tmp_path / name, stages.small_loader(), arch=arch) == unbroken


def test_progressive_sizes_train_a_transformer(tmp_path: Path) -> None:
    stage = stages.finetune(epochs=1, progressive_sizes=[48])
    assert np.isfinite(stages.trainer(tmp_path, stage, arch="timm:test_vit").run().metrics["valid_loss"])


def test_memory_for_each_patch_is_measured() -> None:
    network = stages.FINETUNE.prepare(stages.new_network("timm:test_vit"))
    assert bytes_per_patch(stages.FINETUNE, network, stages.SIZE, ComputeConfig()) > 3 * stages.SIZE**2 * 4


def test_without_timm_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        MissingPackageError, match=r"^the network timm:resnet18 needs timm, .*pip install 'pcam\[timm\]'$"
    ):
        PatchNetwork("timm:resnet18")
