"""Names of the training stages, in the order in which they run."""

from typing import Literal, get_args

StageName = Literal["frozen", "finetune"]
STAGE_NAMES: tuple[StageName, ...] = get_args(StageName)
