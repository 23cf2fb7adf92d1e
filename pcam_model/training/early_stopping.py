"""Early stopping by the validation AUC of finished epochs."""

from dataclasses import dataclass
from typing import Any

from pcam_model.training.metrics_log import MetricsLog


@dataclass(frozen=True)
class EarlyStopping:
    """Which epoch a stage ends with; `patience`: epochs without a better validation AUC, 0: no early stopping."""

    patience: int
    metrics_log: MetricsLog

    def is_best(self, valid_auc: float) -> bool:
        """Whether an epoch that is not in the log yet is the best so far; False without early stopping."""
        return bool(self.patience) and valid_auc > self.metrics_log.best_epoch().get("valid_auc", -1)

    def is_stale(self, epoch: int) -> bool:
        """Whether validation AUC has not improved for `patience` epochs, at the end of `epoch`."""
        return bool(self.patience) and epoch - self.metrics_log.best_epoch().get("epoch", epoch) >= self.patience

    def final_row(self) -> dict[str, Any]:
        """The row of the epoch whose weights the stage ends with: the best with early stopping, else the last."""
        return self.metrics_log.best_epoch() if self.patience else self.metrics_log.epochs()[-1]
