"""A figure with its interval, as reports and records of steps have it."""

from pcam_model.core.schema import Record


class Estimate(Record):
    """A metric, with its 95 % interval where there is one."""

    value: float
    low: float | None = None
    high: float | None = None
