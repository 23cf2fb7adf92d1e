"""Which class a value of a table of labels, or the name of a class, stands for."""

from collections.abc import Sequence
from contextlib import suppress

from pcam_model.data.file_names import class_of

# Spreadsheets and data frames write labels as decimals.
LABEL_VALUES = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "0,0": 0, "1,0": 1}


def label_value(value: str, classes: Sequence[str]) -> int | None:
    """The label (0 or 1) that a value stands for; None where that is not plain.

    Args:
        value: of a table.
        classes: names of class 0 and 1; empty: the usual ones.
    """
    if classes:
        with suppress(ValueError):
            return [name.lower() for name in classes].index(value.lower())
    return LABEL_VALUES[value] if value in LABEL_VALUES else class_of(value)
