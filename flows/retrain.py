"""The flow `pcam`, deployed as `retrain`: train a challenger where something is new, promote it where it is better."""

from prefect import flow

from flows.full_train import build_pack, full_train
from pcam_model.config import TrainConfig
from pcam_model.config_reader import override_preset
from pcam_model.evaluation.promotion_gate import Decision, PromotionConfig
from pcam_model.presets import PresetName
from tasks import checking, process_setup, retraining
from tasks.run_status import STATUS_HOOKS


@flow(name="pcam", log_prints=True, **STATUS_HOOKS)
def retrain(
    config: TrainConfig = TrainConfig(),
    preset: PresetName | None = None,
    promotion: PromotionConfig = PromotionConfig(),
) -> Decision:
    """Train a challenger unless data, config and code are the champion's; promote it only where it is better.

    Args:
        config: every key of the run; a key that is not given has the preset's value, else its default.
        preset: a ready configuration that `config` overrides key by key.
        promotion: which channel the challenger competes for, and by how much it may be worse.
    """
    process_setup.setup_process()
    config = override_preset(preset, config)
    checking.check_run(config)
    workspace = retraining.comparison_workspace(config)
    pack = build_pack(workspace, config)
    state = retraining.compare_with_champion(workspace, config, pack, promotion)
    decision = state.decision
    if decision is None:
        full_train(config.model_copy(update={"run": state.challenger}))
        decision = retraining.judge(workspace, state, pack, promotion, config.seed)
        retraining.apply_decision(workspace, state, decision)
    retraining.report_decision(decision)
    return decision
