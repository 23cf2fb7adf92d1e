"""CSV tables that people write, from a spreadsheet or by hand: labels and slide maps."""

import io
from pathlib import Path

import pandas as pd

from pcam_model.core.errors import ConfigError, SourceError


def read_csv_text(content: bytes) -> pd.DataFrame:
    """A CSV as a table of strings, without a byte order mark and without blanks around names and values.

    Raises:
        ValueError: it is no CSV; the reason, without the file's name.
    """
    try:
        table = pd.read_csv(
            io.BytesIO(content), dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True
        )
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8 text") from error
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    if not isinstance(table.index, pd.RangeIndex):
        raise ValueError("its lines have more columns than its first line names")
    table.columns = [str(name).strip() for name in table.columns]
    stripped: pd.DataFrame = table.apply(lambda column: column.str.strip())
    return stripped


def read_slide_map(path: Path) -> "pd.Series[str]":
    """Slides by patch id. Raises ConfigError where there is no file, SourceError where it is no slide map."""
    if not path.is_file():
        raise ConfigError(f"source.slides is {path}, but there is no such file; give a CSV with the columns id,wsi")
    try:
        table = read_csv_text(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: it cannot be read as a CSV ({error}); expected the columns id,wsi") from error
    if not {"id", "wsi"} <= set(table.columns):
        raise SourceError(f"{path}: its columns are {','.join(table.columns)}; expected id,wsi")
    table = table[table["wsi"] != ""].drop_duplicates(["id", "wsi"])
    repeated = table["id"][table["id"].duplicated()]
    if len(repeated):
        raise SourceError(
            f"{path}: it gives {repeated.iat[0]} two slides; a patch is from one; remove one of the lines"
        )
    return table.set_index("id")["wsi"]
