"""The flow `pcam`: from a source of patches to a published model."""

from prefect import flow

from pcam_model.config import TrainConfig
from pcam_model.config_reader import override_preset
from pcam_model.data.pack import Pack
from pcam_model.presets import PresetName
from pcam_model.registry.runs import PublishedRun
from pcam_model.registry.workspace import Workspace
from pcam_model.training.stage import Stage
from tasks import checking, data, process_setup, publishing, scoring, training
from tasks.run_status import STATUS_HOOKS


@flow(name="pcam", log_prints=True, **STATUS_HOOKS)
def full_train(config: TrainConfig = TrainConfig(), preset: PresetName | None = None) -> PublishedRun:
    """Train a patch classifier and publish it; started again under the same run name, finish what is missing.

    Args:
        config: every key of the run; a key that is not given has the preset's value, else its default.
        preset: a ready configuration that `config` overrides key by key.
    """
    process_setup.setup_process()
    config = override_preset(preset, config)
    checking.check_run(config)
    workspace = publishing.begin_run(config)
    with workspace.held():
        return train_and_publish(workspace, config)


def train_and_publish(workspace: Workspace, config: TrainConfig) -> PublishedRun:
    """All steps of a run, in their order."""
    pack = build_pack(workspace, config)
    data.check_quality(workspace, pack, config)
    publishing.reserve_run(workspace, config)
    context = data.split(workspace, pack, config)

    frozen = training.choose_batch_size(workspace, context, Stage(name="frozen", config=config.frozen), start=None)
    frozen_lr = training.find_lr(workspace, context, frozen, config.lr_finder, start=None)
    head = training.train_frozen(workspace, context, frozen, frozen_lr, start=None)

    finetune = training.choose_batch_size(
        workspace, context, Stage(name="finetune", config=config.finetune), start=head
    )
    finetune_lr = training.find_lr(workspace, context, finetune, config.lr_finder, start=head)
    trained = training.finetune(workspace, context, finetune, finetune_lr, start=head)

    report = scoring.score(workspace, config, context, [frozen_lr, finetune_lr], trained)
    published = publishing.publish(workspace, config, context, trained, report)
    publishing.show_results(workspace, report, published)
    return published


def build_pack(workspace: Workspace, config: TrainConfig) -> Pack:
    """The source as a pack: one that was made before, else downloaded, packed and stored."""
    pack = data.find_stored_pack(workspace, config)
    if pack is None:
        archive = data.download(config, workspace.store)
        pack = data.pack(archive, config)
        data.store_pack(workspace, pack, config)
    return pack
