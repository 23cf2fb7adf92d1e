from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pcam_model.data.batches import Batches
from pcam_model.errors import BadModel, BadPlan
from pcam_model.training.checkpoint import LATEST, load_weights
from pcam_model.training.diary import read_diary
from pcam_model.training.fit import Fit, Watch
from pcam_model.training.network import NetworkPlan, PatchNetwork, build_network
from pcam_model.training.stage import FrozenPlan, Stage, TunedPlan

Part = Callable[..., Batches]


class Interrupted(Exception):
    pass


def fresh(name: str = "mobilenet_v2") -> PatchNetwork:
    return build_network(NetworkPlan.model_validate({"name": name, "weights": "none"}), seed=1, say=lambda _: None)


def fit(
    part: Part, folder: Path, stage: Stage, watch: Watch | None = None, rate: float = 1e-3, every: float = 1000
) -> Fit:
    network = stage.prepare(fresh())
    return Fit(network, part(32), part(16, seed=1), stage, rate, 3, folder, watch, checkpoint_seconds=every)


def frozen(**keys: object) -> Stage:
    return Stage(name="frozen", plan=FrozenPlan.model_validate({"epochs": 2, "batch": 8} | keys))


def tuned(**keys: object) -> Stage:
    return Stage(name="tuned", plan=TunedPlan.model_validate({"epochs": 2, "batch": 8} | keys))


def weights(path: str) -> dict[str, torch.Tensor]:
    network = fresh()
    load_weights(Path(path), network)
    return network.state_dict()


def interrupt(part: Part, folder: Path, stage: Stage, at: int, every: float) -> None:
    """Train until `at` steps are taken, with a checkpoint every so many seconds, and break off there."""

    def stop(done: int, total: int) -> None:
        if done >= at * stage.plan.batch:
            raise Interrupted

    with pytest.raises(Interrupted):
        fit(part, folder, stage, Watch(progress=stop), every=every).run()
    torch.manual_seed(at)  # another process has another random state


@pytest.mark.parametrize("stage", [frozen(), frozen(batchnorm="fixed"), tuned()], ids=["frozen", "fixed", "tuned"])
def test_an_interrupted_run_ends_where_an_unbroken_one_does(tmp_path: Path, part: Part, stage: Stage) -> None:
    whole = fit(part, tmp_path / "whole", stage).run()
    for at in (2, 5, 8):  # in the first epoch, just after it, in the second
        interrupt(part, tmp_path / "broken", stage, at, every=0)
    resumed = fit(part, tmp_path / "broken", stage)
    assert resumed.state.step == 7
    assert resumed.run().digest == whole.digest
    kept, expected = (read_diary(tmp_path / name / "metrics.jsonl") for name in ("broken", "whole"))
    assert [row.get("loss", row.get("valid_loss")) for row in kept] == [
        row.get("loss", row.get("valid_loss")) for row in expected
    ]


def test_steps_after_the_checkpoint_are_forgotten_and_taken_again(tmp_path: Path, part: Part) -> None:
    whole = fit(part, tmp_path / "whole", tuned()).run()

    interrupt(part, tmp_path / "broken", tuned(), at=7, every=1000)
    assert read_diary(tmp_path / "broken" / "metrics.jsonl")[-1]["step"] == 7
    resumed = fit(part, tmp_path / "broken", tuned())
    assert resumed.state.step == 4
    assert resumed.run().digest == whole.digest


def test_a_stage_learns_and_writes_its_diary(tmp_path: Path, part: Part) -> None:
    told: list[dict[str, float]] = []
    stage = tuned(epochs=6)
    network = stage.prepare(fresh("resnet18"))
    end = Fit(network, part(32), part(16, seed=1), stage, 1e-3, 3, tmp_path, Watch(epoch=told.append)).run()
    assert end.figures["valid_auc"] > 0.9
    steps = [row for row in read_diary(tmp_path / "metrics.jsonl") if row["kind"] == "step"]
    assert [row["step"] for row in steps] == list(range(1, 25))
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert [row["epoch"] for row in told] == [1, 2, 3, 4, 5, 6]
    assert end.step == 24 and not (tmp_path / LATEST).exists()


def test_frozen_training_leaves_the_bodys_convolutions(tmp_path: Path, part: Part) -> None:
    after, before = weights(fit(part, tmp_path, frozen()).run().path), fresh().state_dict()
    assert torch.equal(after["body.features.2.conv.0.0.weight"], before["body.features.2.conv.0.0.weight"])
    assert not torch.equal(after["body.features.2.conv.0.1.weight"], before["body.features.2.conv.0.1.weight"])
    assert not torch.equal(after["head.3.weight"], before["head.3.weight"])


@pytest.mark.parametrize(
    ("other", "rate", "pack", "named"),
    [
        (tuned(epochs=3), 1e-3, "a", "plan"),
        (tuned(), 2e-3, "a", "rate"),
        (frozen(), 1e-3, "a", "plan"),
        (tuned(), 1e-3, "b", "pack"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused_by_name(
    tmp_path: Path, part: Part, other: Stage, rate: float, pack: str, named: str
) -> None:
    begun = fit(part, tmp_path, tuned().resting_on({"pack": "a"}))
    begun._one_step()
    begun.checkpoint()
    with pytest.raises(BadPlan, match=f"its {named} is"):
        fit(part, tmp_path, other.resting_on({"pack": pack}), rate=rate)


def test_a_truncated_checkpoint_is_refused(tmp_path: Path, part: Part) -> None:
    begun = fit(part, tmp_path, tuned())
    begun._one_step()
    begun.checkpoint()
    whole = (tmp_path / LATEST).read_bytes()
    (tmp_path / LATEST).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadModel, match="is damaged"):
        fit(part, tmp_path, tuned())


def test_a_batch_larger_than_the_part_is_refused(tmp_path: Path, part: Part) -> None:
    with pytest.raises(BadPlan, match="tuned.batch is 64, but the training part has only 32 patches"):
        fit(part, tmp_path, tuned(batch=64))


def test_a_loss_that_is_no_number_stops_with_step_and_rate(tmp_path: Path, part: Part) -> None:
    broken = fit(part, tmp_path, tuned())
    broken.state.network.head[3].weight.data.fill_(float("inf"))  # type: ignore[union-attr, operator]
    with pytest.raises(BadPlan, match="broke down at step 1 of 8.*set tuned.rate lower"):
        broken.run()


def test_the_averaged_weights_are_what_is_measured_and_left_and_training_goes_on_from_its_own(
    tmp_path: Path, part: Part
) -> None:
    plain, averaged = (fit(part, tmp_path / str(share), tuned(average=share)) for share in (0, 0.5))
    ends = [one.run() for one in (plain, averaged)]
    assert averaged.state.average is not None
    for name, tensor in weights(ends[1].path).items():
        assert torch.equal(tensor, averaged.state.average.tensors[name])
    own = averaged.state.network.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in weights(ends[0].path).items())
    assert ends[0].digest != ends[1].digest and ends[0].figures != ends[1].figures
