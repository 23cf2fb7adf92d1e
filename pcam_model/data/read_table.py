"""Tables that pcam wrote, read again."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from pyarrow import parquet

from pcam_model.core.errors import PcamError, SourceError


def read_table(
    path: Path,
    columns: Sequence[str],
    *,
    optional: Sequence[str] = (),
    remedy: str,
    error: type[PcamError] = SourceError,
) -> pd.DataFrame:
    """These columns of a parquet file.

    Args:
        path: the file.
        columns: their names; others are left out.
        optional: names of columns that the file may lack: they are None then.
        remedy: what the message tells to do.
        error: the class of what is raised.

    Raises:
        error: the file is missing or damaged, or lacks a column.
    """
    try:
        present = [name for name in optional if name in parquet.read_schema(path).names]
        table = pd.read_parquet(path, columns=[*columns, *present])
        return table.assign(**{name: None for name in optional if name not in present})
    except Exception as failure:  # Arrow raises nearly anything on damaged bytes: OSError, ValueError, TypeError ...
        reason = str(failure).strip().splitlines() or [type(failure).__name__]
        raise error(
            f"{path} is no table as pcam writes it ({reason[0][:120]}); expected parquet with the columns "
            f"{', '.join(columns)}; {remedy}"
        ) from failure
