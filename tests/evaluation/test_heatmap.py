"""Heat explains the predicted class, is zero where nothing speaks for it, and leaves the network as it was."""

import numpy as np
import pytest
import torch
from torch import nn

from pcam_model.core.platt_scaling import PlattScaling
from pcam_model.evaluation import examples, heatmap
from pcam_model.evaluation.predictions import SplitPredictions
from pcam_model.evaluation.views import views
from tests.evaluation.conftest import predictions


class Spot(nn.Module):
    """Calls tumour what is bright in its first channel: the class evidence is the picture itself."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.ReLU(), nn.AvgPool2d(8))
        with torch.no_grad():
            self.body[0].weight.zero_()
            self.body[0].weight[0, 0, 1, 1] = 1.0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logit = self.body(images)[:, 0].mean((1, 2)) - 0.05
        return torch.stack([-logit, logit], 1)


@pytest.fixture
def spot() -> torch.Tensor:
    images = torch.zeros(2, 3, 96, 96)
    images[0, 0, 8:24, 64:88] = 1.0
    images[1, 0, 32:64, 32:64] = 1.0
    return images


def test_the_heat_lies_where_the_evidence_is(spot):
    heat = heatmap.grad_cam(Spot(), spot, torch.ones(2, dtype=torch.long)).numpy()
    assert heat.shape == (2, 96, 96)
    assert heat.max() == pytest.approx(1.0)
    assert heat.min() >= 0
    assert heat[0, 8:24, 64:88].mean() > 20 * heat[0, 48:].mean()
    share = heatmap.share_in_centre(heat)
    assert share[0] < 0.05
    assert share[1] > 0.8


def test_what_speaks_for_tumour_does_not_speak_against_it(spot):
    heat = heatmap.grad_cam(Spot(), spot, torch.zeros(2, dtype=torch.long))
    assert not heat.any()
    assert np.isnan(heatmap.share_in_centre(heat.numpy())).all()


def test_it_equals_pytorch_grad_cam(spot):
    library = pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed")
    torch.manual_seed(3)
    network = nn.Sequential(nn.Conv2d(3, 8, 5, 4), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.Tanh(), nn.AdaptiveAvgPool2d(1),
                            nn.Flatten(), nn.Linear(8, 2)).eval()  # fmt: skip
    images = torch.rand(6, 3, 96, 96)
    layer = heatmap.last_feature_map(network, images[:1])
    assert layer is network[3]
    with library.GradCAM(model=network, target_layers=[layer]) as cam:
        theirs = cam(images, [lambda logits: logits[1] - logits[0]] * 6)
    ours = heatmap.grad_cam(network, images, torch.ones(6, dtype=torch.long)).numpy()
    there = ours.any(axis=(1, 2))
    assert there.sum() >= 2
    assert (there == theirs.any(axis=(1, 2))).all()
    for mine, other in zip(ours[there], theirs[there], strict=True):
        assert np.corrcoef(mine.ravel(), other.ravel())[0, 1] > 0.99


def test_the_network_is_left_as_it_was(spot):
    network = Spot().train()
    heatmap.grad_cam(network, spot, torch.ones(2, dtype=torch.long))
    assert network.training
    assert all(p.grad is None for p in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


def test_the_last_map_is_never_coarser_than_six_where_it_can_be():
    network = nn.Sequential(nn.Conv2d(3, 2, 3, 8, 1), nn.Conv2d(2, 2, 3, 2, 1), nn.Conv2d(2, 2, 3, 2, 1))
    assert heatmap.last_feature_map(network, torch.rand(1, 3, 96, 96)) is network[1]  # 12, 6, 3
    assert heatmap.last_feature_map(network, torch.rand(1, 3, 24, 24)) is network[0]  # 3, 2, 1: the largest there is


def test_the_overlay_keeps_the_shape_and_reddens_the_heat():
    patch, heat = np.full((96, 96, 3), 200, np.uint8), np.zeros((96, 96), np.float32)
    heat[40:50, 40:50] = 0.6
    shown = heatmap.overlay(patch, heat)
    assert shown.shape == patch.shape
    assert shown.dtype == np.uint8
    assert int(shown[45, 45, 0]) - int(shown[45, 45, 2]) > 60
    assert np.ptp(shown[0, 0].astype(int)) < 20


def test_examples_are_what_their_group_says():
    table = predictions(300, 6)
    odds = (table["logit1"] - table["logit0"]).to_numpy()
    labels, predicted = table["label"].to_numpy(), (odds >= 0).astype(int)
    groups = examples.choose_examples(labels, odds, predicted, seed=1, per_group=4)
    missed, alarms, hits = (groups[name] for name in ("Missed tumours, highest loss", "False alarms, highest loss",
                                                      "Random hits"))  # fmt: skip
    assert (labels[missed] == 1).all()
    assert odds[missed[0]] == odds[labels == 1].min()
    assert (labels[alarms] == 0).all()
    assert odds[alarms[0]] == odds[labels == 0].max()
    assert (labels[hits] == predicted[hits]).all()
    assert sorted(labels[hits]) == [0, 0, 1, 1]
    assert np.abs(odds[groups["Least certain"][0]]) == np.abs(odds).min()
    assert (examples.choose_examples(labels, odds, predicted, 1, 4)["Random hits"] == hits).all()


def test_explained_examples_say_class_probability_and_blank_maps():
    table = predictions(8, 6).assign(slide=None)
    patches = np.random.default_rng(1).integers(0, 256, (20, 96, 96, 3), dtype=np.uint8)
    rows = np.arange(19, 11, -1)
    shown = examples.explain_examples(
        Spot(), 96, patches, rows, table, scaling=PlattScaling(temperature=2.0), per_group=3
    )
    row = int(table.index[table["id"] == shown[0].id][0])
    odds = float(table.loc[row, "logit1"] - table.loc[row, "logit0"])
    assert shown[0].probability == pytest.approx(1 / (1 + np.exp(-odds / 2)))
    assert (shown[0].patch == patches[rows[row]]).all()
    assert shown[0].slide == ""
    assert all((example.heat is None) == (example.predicted == 0) for example in shown)


def test_repeats_of_one_patch_are_shown_once():
    table = predictions(8, 6).assign(pixels=["a"] * 6 + ["b", "c"])
    patches = np.zeros((8, 96, 96, 3), np.uint8)
    shown = examples.explain_examples(Spot(), 96, patches, np.arange(8), table)
    assert {example.id for example in shown} == {table["id"][row] for row in (0, 6, 7)}


def test_heat_in_the_centre_is_measured_on_detected_tumours_alone():
    patches = np.zeros((6, 96, 96, 3), np.uint8)
    patches[:, 32:64, 32:64] = 255
    table = predictions(6, 6).assign(label=[1, 1, 1, 0, 0, 1], logit0=0.0, logit1=[1.0, 1, -1, 1, -1, 1])
    heat = examples.heat_in_centre(Spot(), 96, patches, np.arange(6), table)
    assert heat.patches == 3
    assert heat.blank == 0
    assert heat.mean_share > 0.5 > heat.chance
    no_tumour = table.assign(label=0)
    assert examples.heat_in_centre(Spot(), 96, patches, np.arange(6), no_tumour).mean_share is None


def test_examples_are_of_the_last_split_at_the_calibrated_threshold(make_evidence):
    patches = np.random.default_rng(1).integers(0, 256, (40, 96, 96, 3), dtype=np.uint8)
    rows = np.arange(39, 29, -1)
    splits = {"valid": SplitPredictions(predictions(200, 1)), "test": SplitPredictions(predictions(10, 2), rows=rows)}
    evidence = examples.add_examples(make_evidence(predictions=splits), Spot(), 96, patches)
    row = int(evidence.examples[0].id.split("-")[1])
    assert evidence.examples[0].id.startswith("2-")
    assert (evidence.examples[0].patch == patches[rows[row]]).all()
    assert evidence.heat_in_centre is not None
    assert evidence.heat_in_centre.patches > 0


def test_the_views_are_the_8_symmetries_and_the_first_is_the_patch_itself():
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    symmetries = list(views(image))
    assert (symmetries[0] == image).all()
    assert len(symmetries) == len({tuple(view.flatten().tolist()) for view in symmetries}) == 8
    turned = {tuple(view.flatten().tolist()) for view in views(image.rot90(1, (-2, -1)).flip(-1))}
    assert turned == {tuple(view.flatten().tolist()) for view in symmetries}  # their mean ignores how a patch lies
