from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pcam_model.core.errors import ConfigError, ModelError
from pcam_model.data.augment import ViewConfig
from pcam_model.data.patch_loader import PatchLoader
from pcam_model.training.checkpoint import LATEST, load_weights
from pcam_model.training.device import ComputeConfig
from pcam_model.training.metrics_log import read_metrics
from pcam_model.training.network import ModelConfig, PatchNetwork, build_network
from pcam_model.training.optimizer import layer_lr_multipliers
from pcam_model.training.stage import FinetuneConfig, FrozenConfig, Stage
from pcam_model.training.step import loss_of, new_state, train_step
from pcam_model.training.trainer import Callbacks, Trainer

Part = Callable[..., PatchLoader]


class Interrupted(Exception):
    pass


def fresh(name: str = "mobilenet_v2") -> PatchNetwork:
    return build_network(ModelConfig.model_validate({"name": name, "weights": "none"}), seed=1, say=lambda _: None)


def trainer(
    part: Part, folder: Path, stage: Stage, callbacks: Callbacks | None = None, lr: float = 1e-3, every: float = 1000
) -> Trainer:
    network = stage.prepare(fresh())
    return Trainer(
        network, part(32), part(16, seed=1), stage, lr, 3, folder, callbacks, ComputeConfig(checkpoint_seconds=every)
    )


def frozen(**keys: object) -> Stage:
    return Stage(name="frozen", config=FrozenConfig.model_validate({"epochs": 2, "batch": 8} | keys))


def finetune(**keys: object) -> Stage:
    return Stage(name="finetune", config=FinetuneConfig.model_validate({"epochs": 2, "batch": 8} | keys))


def weights(path: str) -> dict[str, torch.Tensor]:
    network = fresh()
    load_weights(Path(path), network)
    return network.state_dict()


def interrupt(part: Part, folder: Path, stage: Stage, at: int, every: float) -> None:
    """Train until `at` steps are taken, with a checkpoint every so many seconds, and break off there."""

    def stop(done: int, total: int) -> None:
        if done >= at * stage.config.batch_size:
            raise Interrupted

    with pytest.raises(Interrupted):
        trainer(part, folder, stage, Callbacks(progress=stop), every=every).run()
    torch.manual_seed(at)  # another process has another random state


def save_after_a_step(trainer: Trainer) -> None:
    trainer._one_step()
    trainer.checkpoint()
    trainer.saver.wait()


@pytest.mark.parametrize(
    "stage", [frozen(), frozen(batchnorm="fixed"), finetune()], ids=["frozen", "fixed", "finetune"]
)
def test_an_interrupted_run_ends_where_an_unbroken_one_does(tmp_path: Path, part: Part, stage: Stage) -> None:
    whole = trainer(part, tmp_path / "whole", stage).run()
    for at in (2, 5, 8):  # in the first epoch, just after it, in the second
        interrupt(part, tmp_path / "broken", stage, at, every=1e-9)
    resumed = trainer(part, tmp_path / "broken", stage)
    assert resumed.state.step == 7
    assert resumed.run().digest == whole.digest
    kept, expected = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("broken", "whole"))
    assert [row.get("loss", row.get("valid_loss")) for row in kept] == [
        row.get("loss", row.get("valid_loss")) for row in expected
    ]


def test_steps_after_the_checkpoint_are_forgotten_and_taken_again(tmp_path: Path, part: Part) -> None:
    whole = trainer(part, tmp_path / "whole", finetune()).run()

    interrupt(part, tmp_path / "broken", finetune(), at=7, every=1000)
    assert read_metrics(tmp_path / "broken" / "metrics.jsonl")[-1]["step"] == 7
    resumed = trainer(part, tmp_path / "broken", finetune())
    assert resumed.state.step == 4
    assert resumed.run().digest == whole.digest


def test_a_stage_learns_and_writes_its_diary(tmp_path: Path, part: Part) -> None:
    told: list[dict[str, float]] = []
    stage = finetune(epochs=6)
    network = stage.prepare(fresh("resnet18"))
    end = Trainer(network, part(32), part(16, seed=1), stage, 1e-3, 3, tmp_path, Callbacks(epoch=told.append)).run()
    assert end.figures["valid_auc"] > 0.9
    steps = [row for row in read_metrics(tmp_path / "metrics.jsonl") if row["kind"] == "step"]
    assert [row["step"] for row in steps] == list(range(1, 25))
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert [row["epoch"] for row in told] == [1, 2, 3, 4, 5, 6]
    assert end.step == 24 and not (tmp_path / LATEST).exists()


def test_frozen_training_leaves_the_bodys_convolutions(tmp_path: Path, part: Part) -> None:
    after, before = weights(trainer(part, tmp_path, frozen()).run().path), fresh().state_dict()
    assert torch.equal(after["body.features.2.conv.0.0.weight"], before["body.features.2.conv.0.0.weight"])
    assert not torch.equal(after["body.features.2.conv.0.1.weight"], before["body.features.2.conv.0.1.weight"])
    assert not torch.equal(after["head.3.weight"], before["head.3.weight"])


@pytest.mark.parametrize(
    ("other", "rate", "pack", "named"),
    [
        (finetune(epochs=3), 1e-3, "a", "config.epochs"),
        (finetune(no_warp_fraction=0), 1e-3, "a", "config.calm"),
        (finetune(), 2e-3, "a", "rate"),
        (frozen(), 1e-3, "a", "config.average"),
        (finetune(), 1e-3, "b", "pack"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused_by_name(
    tmp_path: Path, part: Part, other: Stage, lr: float, pack: str, named: str
) -> None:
    begun = trainer(part, tmp_path, finetune().resting_on({"pack": "a"}))
    save_after_a_step(begun)
    with pytest.raises(ConfigError, match=f"its {named} is"):
        trainer(part, tmp_path, other.resting_on({"pack": pack}), lr=lr)


def test_a_truncated_checkpoint_is_refused(tmp_path: Path, part: Part) -> None:
    begun = trainer(part, tmp_path, finetune())
    save_after_a_step(begun)
    whole = (tmp_path / LATEST).read_bytes()
    (tmp_path / LATEST).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="is damaged"):
        trainer(part, tmp_path, finetune())


def test_a_batch_larger_than_the_part_is_refused(tmp_path: Path, part: Part) -> None:
    with pytest.raises(ConfigError, match="finetune.batch_size is 64, but the training part has only 32 patches"):
        trainer(part, tmp_path, finetune(batch_size=64))


def test_the_averaged_weights_are_what_is_measured_and_left_and_training_goes_on_from_its_own(
    tmp_path: Path, part: Part
) -> None:
    plain, averaged = (trainer(part, tmp_path / str(share), finetune(ema=share)) for share in (0, 0.5))
    ends = [one.run() for one in (plain, averaged)]
    assert averaged.state.ema is not None
    for name, tensor in weights(ends[1].path).items():
        assert torch.equal(tensor, averaged.state.ema.tensors[name])
    own = averaged.state.network.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in weights(ends[0].path).items())
    assert ends[0].digest != ends[1].digest and ends[0].figures != ends[1].figures


def test_training_stops_early_leaves_its_best_epoch_and_an_interruption_changes_nothing(
    tmp_path: Path, part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, seen = finetune(epochs=6, early_stopping_patience=2, ema=0), list[dict[str, torch.Tensor]]()
    aucs = iter([0.6, 0.8, 0.7, 0.8, 0.9, 0.9] * 2)

    def measured(*_: object) -> dict[str, float]:
        return {"valid_loss": 0.5, "valid_accuracy": 0.7, "valid_auc": next(aucs)}

    monkeypatch.setattr("pcam_model.training.trainer.quick_figures", measured)
    whole = trainer(part, tmp_path / "whole", stage)
    whole.callbacks = Callbacks(
        epoch=lambda _: seen.append({k: v.clone() for k, v in whole.state.network.state_dict().items()})
    )
    end = whole.run()
    assert (end.epoch, end.step, end.figures["valid_auc"], len(seen)) == (2, 8, 0.8, 4)
    assert all(torch.equal(tensor, seen[1][name]) for name, tensor in weights(end.path).items())

    aucs = iter([0.6, 0.8, 0.7, 0.8])
    interrupt(part, tmp_path / "broken", stage, at=13, every=1e-9)
    assert trainer(part, tmp_path / "broken", stage).run().digest == end.digest


def test_a_run_that_stopped_early_and_was_cut_off_before_its_end_does_not_train_on(
    tmp_path: Path, part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    aucs = iter([0.8, 0.7])
    monkeypatch.setattr(
        "pcam_model.training.trainer.quick_figures",
        lambda *_: {"valid_loss": 0.5, "valid_accuracy": 0.7, "valid_auc": next(aucs)},
    )
    cut = trainer(part, tmp_path, finetune(epochs=6, early_stopping_patience=1))
    monkeypatch.setattr(cut, "_finish", lambda: None)
    cut.run()
    resumed = trainer(part, tmp_path, finetune(epochs=6, early_stopping_patience=1))
    assert resumed.run().epoch == 1 and resumed.state.step == 8


@pytest.mark.parametrize("keys", [{"smoothing": 0.2}, {"clip": 0.1}, {"stain": 0.2}, {"sizes": (48,)}], ids=str)
def test_each_option_changes_the_training(tmp_path: Path, part: Part, keys: dict[str, object]) -> None:
    plain, other = (trainer(part, tmp_path / str(len(k)), finetune(epochs=1, **k)).run() for k in ({}, keys))
    assert plain.digest != other.digest


def test_smoothed_labels_cost_a_certain_network_and_a_long_gradient_is_shortened(part: Part) -> None:
    images, labels = part(8).augmented(torch.arange(8), 1)
    network = fresh("resnet18").eval()
    with torch.no_grad():
        plain, smooth = (loss_of(network, images, labels, 1, label_smoothing=share) for share in (0.0, 0.2))
        logits = network(images).log_softmax(1)
    assert float(smooth) == pytest.approx(float(0.8 * plain - 0.2 * logits.mean()), rel=1e-2)  # bfloat16, where it is

    state = new_state(network, layer_lr_multipliers(10), images.device, ComputeConfig())
    train_step(state, images, labels, 0.0, 0.9, 1, max_grad_norm=0.01)
    norm = torch.stack([p.grad.norm() for p in network.parameters() if p.grad is not None]).norm()
    assert float(norm) == pytest.approx(0.01, rel=1e-3)


def test_a_stage_grows_in_equal_shares_to_the_networks_size_and_is_calm_at_its_end() -> None:
    stage = finetune(progressive_sizes=(48, 64), no_warp_fraction=0.5, stain_jitter=0.1)
    sights = [stage.view_config(step, 6, 96) for step in range(6)]
    assert [view_config.size for view_config in sights] == [48, 48, 64, 64, 96, 96]
    assert [view_config.no_warp_fraction for view_config in sights] == [False] * 3 + [True] * 3
    assert {view_config.stain_jitter for view_config in sights} == {0.1}
    assert [frozen().view_config(step, 2, 96) for step in range(2)] == [ViewConfig(96)] * 2
