from pathlib import Path

import pytest
import stages
import torch
from stages import batch, finetune, frozen, new_network, small_loader

from pcam_model.core.checkpoint_names import LATEST
from pcam_model.core.errors import CheckpointMismatchError, ConfigError
from pcam_model.core.rng import StepKey
from pcam_model.data.augment import ViewConfig
from pcam_model.training.callbacks import Callbacks
from pcam_model.training.checkpoint import load_weights
from pcam_model.training.device import ComputeConfig
from pcam_model.training.metrics_log import read_metrics
from pcam_model.training.optimizer import layer_lr_multipliers
from pcam_model.training.stage import Stage
from pcam_model.training.step import compute_loss, train_step
from pcam_model.training.train_state import create_train_state
from pcam_model.training.trainer import Trainer


class Interrupted(Exception):
    pass


def trainer(
    folder: Path, stage: Stage, callbacks: Callbacks | None = None, max_lr: float = 1e-3, every: float = 1000
) -> Trainer:
    """A trainer of 4 steps an epoch, with a checkpoint every so many seconds."""
    compute = ComputeConfig(checkpoint_seconds=every)
    return stages.trainer(folder, stage, small_loader(32), compute, callbacks, max_lr)


def weights(path: str) -> dict[str, torch.Tensor]:
    network = new_network()
    load_weights(Path(path), network)
    return network.state_dict()


def interrupt(folder: Path, stage: Stage, at: int, every: float) -> None:
    """Train until `at` steps are taken, with a checkpoint every so many seconds, and break off there."""

    def stop(done: int, total: int) -> None:
        if done >= at * stage.config.batch_size:
            raise Interrupted

    with pytest.raises(Interrupted):
        trainer(folder, stage, Callbacks(on_progress=stop), every=every).run()
    torch.manual_seed(at)  # another process has another random state


def save_after_a_step(trainer: Trainer) -> None:
    trainer.resume()
    trainer.step()
    trainer.checkpoint()
    trainer.checkpoints.wait()


@pytest.mark.parametrize(
    "stage", [frozen(), frozen(batchnorm="fixed"), finetune()], ids=["frozen", "fixed", "finetune"]
)
def test_an_interrupted_run_ends_where_an_unbroken_one_does(tmp_path: Path, stage: Stage) -> None:
    whole = trainer(tmp_path / "whole", stage).run()
    for at in (2, 5, 8):  # in the first epoch, just after it, in the second
        interrupt(tmp_path / "broken", stage, at, every=1e-9)
    resumed = trainer(tmp_path / "broken", stage).resume()
    assert resumed.state.step == 7
    assert resumed.run().digest == whole.digest
    rows, expected = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("broken", "whole"))
    assert [row.get("loss", row.get("valid_loss")) for row in rows] == [
        row.get("loss", row.get("valid_loss")) for row in expected
    ]


def test_steps_after_the_checkpoint_are_forgotten_and_taken_again(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", finetune()).run()

    interrupt(tmp_path / "broken", finetune(), at=7, every=1000)
    assert read_metrics(tmp_path / "broken" / "metrics.jsonl")[-1]["step"] == 7
    resumed = trainer(tmp_path / "broken", finetune()).resume()
    assert resumed.state.step == 4
    assert resumed.run().digest == whole.digest


def test_a_stage_learns_and_writes_its_metrics(tmp_path: Path) -> None:
    epochs: list[dict[str, float]] = []
    callbacks = Callbacks(on_epoch=epochs.append)
    end = stages.trainer(tmp_path, finetune(epochs=6), small_loader(32), None, callbacks, arch="resnet18").run()
    assert end.metrics["valid_auc"] > 0.9
    steps = [row for row in read_metrics(tmp_path / "metrics.jsonl") if row["kind"] == "step"]
    assert [row["step"] for row in steps] == list(range(1, 25))
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert [row["epoch"] for row in epochs] == [1, 2, 3, 4, 5, 6]
    assert end.step == 24
    assert not (tmp_path / LATEST).exists()


def test_frozen_training_leaves_the_bodys_convolutions(tmp_path: Path) -> None:
    after, before = weights(trainer(tmp_path, frozen()).run().path), new_network().state_dict()
    assert torch.equal(after["body.features.2.conv.0.0.weight"], before["body.features.2.conv.0.0.weight"])
    assert not torch.equal(after["body.features.2.conv.0.1.weight"], before["body.features.2.conv.0.1.weight"])
    assert not torch.equal(after["head.3.weight"], before["head.3.weight"])


@pytest.mark.parametrize(
    ("other", "max_lr", "pack", "named"),
    [
        (finetune(epochs=3), 1e-3, "a", "config.epochs"),
        (finetune(no_warp_fraction=0), 1e-3, "a", "config.no_warp_fraction"),
        (finetune(), 2e-3, "a", "lr"),
        (frozen(), 1e-3, "a", "config.batchnorm"),
        (finetune(), 1e-3, "b", "pack"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused_by_name(
    tmp_path: Path, other: Stage, max_lr: float, pack: str, named: str
) -> None:
    begun = trainer(tmp_path, finetune().with_inputs({"pack": "a"}))
    save_after_a_step(begun)
    with pytest.raises(CheckpointMismatchError, match=f"its {named} is"):
        trainer(tmp_path, other.with_inputs({"pack": pack}), max_lr=max_lr).resume()


def test_a_batch_larger_than_the_training_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"finetune\.batch_size is 64, but the training split has only 32 patches"):
        trainer(tmp_path, finetune(batch_size=64))


def test_averaged_weights_are_validated_and_published_and_training_continues_from_its_own(tmp_path: Path) -> None:
    plain, averaged = (trainer(tmp_path / str(value), finetune(ema_fraction=value)) for value in (0, 0.5))
    ends = [one.run() for one in (plain, averaged)]
    assert averaged.state.ema is not None
    for name, tensor in weights(ends[1].path).items():
        assert torch.equal(tensor, averaged.state.ema.tensors[name])
    own = averaged.state.network.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in weights(ends[0].path).items())
    assert ends[0].digest != ends[1].digest
    assert ends[0].metrics != ends[1].metrics


def test_training_stops_early_leaves_its_best_epoch_and_an_interruption_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, weights_by_epoch = (
        finetune(epochs=6, early_stopping_patience=2, ema_fraction=0),
        list[dict[str, torch.Tensor]](),
    )
    aucs = iter([0.6, 0.8, 0.7, 0.8, 0.9, 0.9] * 2)

    def fake_metrics(*_: object) -> dict[str, float]:
        return {"valid_loss": 0.5, "valid_accuracy": 0.7, "valid_auc": next(aucs)}

    monkeypatch.setattr("pcam_model.training.trainer.validation_metrics", fake_metrics)
    whole = trainer(tmp_path / "whole", stage)
    network = whole.state.network
    whole.callbacks = Callbacks(
        on_epoch=lambda _: weights_by_epoch.append({k: v.clone() for k, v in network.state_dict().items()})
    )
    end = whole.run()
    assert (end.epoch, end.step, end.metrics["valid_auc"], len(weights_by_epoch)) == (2, 8, 0.8, 4)
    assert all(torch.equal(tensor, weights_by_epoch[1][name]) for name, tensor in weights(end.path).items())

    aucs = iter([0.6, 0.8, 0.7, 0.8])
    interrupt(tmp_path / "broken", stage, at=13, every=1e-9)
    assert trainer(tmp_path / "broken", stage).run().digest == end.digest


def test_a_run_that_stopped_early_and_was_cut_off_before_its_end_does_not_train_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aucs = iter([0.8, 0.7])
    monkeypatch.setattr(
        "pcam_model.training.trainer.validation_metrics",
        lambda *_: {"valid_loss": 0.5, "valid_accuracy": 0.7, "valid_auc": next(aucs)},
    )
    cut = trainer(tmp_path, finetune(epochs=6, early_stopping_patience=1))
    monkeypatch.setattr(cut, "_finish", lambda: None)
    cut.run()
    resumed = trainer(tmp_path, finetune(epochs=6, early_stopping_patience=1))
    assert resumed.run().epoch == 1
    assert resumed.state.step == 8


@pytest.fixture(scope="module")
def plain_digest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of one epoch with default options."""
    return trainer(tmp_path_factory.mktemp("plain"), finetune(epochs=1)).run().digest


@pytest.mark.parametrize(
    "keys",
    [{"label_smoothing": 0.2}, {"max_grad_norm": 0.1}, {"stain_jitter": 0.2}, {"progressive_sizes": (48,)}],
    ids=str,
)
def test_each_option_changes_the_training(tmp_path: Path, plain_digest: str, keys: dict[str, object]) -> None:
    assert trainer(tmp_path, finetune(epochs=1, **keys)).run().digest != plain_digest


def test_smoothed_labels_cost_a_certain_network_and_a_long_gradient_is_clipped() -> None:
    network, loader = new_network("resnet18").eval(), small_loader(8)
    step_batch = batch(loader, network, StepKey(1, 0, 0, 0))
    with torch.no_grad():
        plain, smooth = (compute_loss(network, step_batch, label_smoothing=value) for value in (0.0, 0.2))
        logits = network(step_batch.images(step_batch.patches(), slice(0, 8))).log_softmax(1)
    assert float(smooth) == pytest.approx(
        float(0.8 * plain - 0.2 * logits.mean()), rel=1e-2
    )  # in bfloat16 on some CPUs

    state = create_train_state(network, layer_lr_multipliers(10), loader.device, ComputeConfig())
    train_step(state, step_batch, 0.0, 0.9, max_grad_norm=0.01)
    norm = torch.stack([p.grad.norm() for p in network.parameters() if p.grad is not None]).norm()
    assert float(norm) == pytest.approx(0.01, rel=1e-3)


def test_image_sizes_grow_in_equal_steps_and_the_end_is_not_warped() -> None:
    stage = finetune(progressive_sizes=(48, 64), no_warp_fraction=0.5, stain_jitter=0.1)
    view_configs = [stage.view_config(step, 6, 96) for step in range(6)]
    assert [view_config.image_size for view_config in view_configs] == [48, 48, 64, 64, 96, 96]
    assert [view_config.no_warp for view_config in view_configs] == [False] * 3 + [True] * 3
    assert {view_config.stain_jitter for view_config in view_configs} == {0.1}
    assert [frozen().view_config(step, 2, 96) for step in range(2)] == [ViewConfig(96)] * 2
