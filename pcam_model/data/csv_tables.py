"""Lists that people write: labels and slides as CSV, from a spreadsheet or by hand."""

import io

import pandas as pd


def read_listing(content: bytes) -> pd.DataFrame:
    """A CSV as text: without a byte order mark, and without blanks around names and values.

    Raises ValueError for what is none, in words.
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
