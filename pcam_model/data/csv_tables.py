"""CSV tables that people write, from a spreadsheet or by hand: labels and slide maps."""

import codecs
import csv
import io
import re
from pathlib import Path

import pandas as pd

from pcam_model.core.errors import SourceError
from pcam_model.data.file_kinds import describe_wrong_bytes

MAX_LINE_LENGTH, MAX_COLUMNS = 1 << 16, 1000
READ_COLUMNS = ("id", "label", "wsi", "domain")


def read_csv_text(content: bytes) -> pd.DataFrame:
    """A CSV as a table of strings: names in lower case, nothing around names and values, no empty lines.

    Columns are divided by commas, semicolons, tabs or bars: by what the first line `sep=;` says or holds most of.

    Raises:
        ValueError: it is no CSV; the reason, without the file's name.
    """
    if wrong := describe_wrong_bytes(content):
        raise ValueError(wrong)
    text, separator = _split_separator(_decode(content))
    _check_limits(text, separator)
    _refuse_repeated_names(text, separator)
    try:
        table = pd.read_csv(io.StringIO(text), sep=separator, dtype=str, keep_default_na=False, skipinitialspace=True)
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    if not isinstance(table.index, pd.RangeIndex):
        raise ValueError("its lines have more columns than its first line names")
    table.columns = [str(name).strip().lower() for name in table.columns]
    table = table.apply(lambda column: column.str.strip())
    filled: pd.DataFrame = table[(table != "").any(axis=1)].reset_index(drop=True)
    return filled


def _check_limits(text: str, separator: str) -> None:
    """Raise ValueError for lines on which pandas would spend minutes, or all memory."""
    for number, line in enumerate(io.StringIO(text), 1):
        if len(line) > MAX_LINE_LENGTH or line.count(separator) >= MAX_COLUMNS:
            raise ValueError(
                f"its line {number:,} has {len(line):,} characters and {line.count(separator) + 1:,} columns; expected "
                f"{MAX_LINE_LENGTH:,} characters and {MAX_COLUMNS:,} columns at most"
            )


def _refuse_repeated_names(text: str, separator: str) -> None:
    """Raise ValueError where two columns have a name that is read: pandas would take the first."""
    names = next(csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True), [])
    lower = [name.strip().lower() for name in names]
    if repeated := [name for name in READ_COLUMNS if lower.count(name) > 1]:
        raise ValueError(f"its first line names the column {repeated[0]} twice; remove or rename one of the two")


def _decode(content: bytes) -> str:
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # Excel's "Unicode text"
    try:
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8 text; save it as CSV in UTF-8") from error
    if "\0" in text:
        raise ValueError("it holds zero bytes, as UTF-16 without its first mark does; save it as CSV in UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")  # \r alone: Excel's "CSV (Macintosh)"


def _split_separator(text: str) -> tuple[str, str]:
    """The table without Excel's line `sep=;`, and what divides its columns."""
    first, _, rest = text.partition("\n")
    if match := re.fullmatch(r'"?sep=(.)"?', first):
        return rest, match[1]
    return text, max(",;\t|", key=first.count)


def known_domains(table: pd.DataFrame) -> "pd.Series[str]":
    """The column `domain` of a table of strings, None where it is empty."""
    return table["domain"].astype(object).where(table["domain"] != "", None)


def read_csv_file(path: Path, required: set[str], expected: str) -> pd.DataFrame:
    """The table of a CSV file; see `read_csv_text`.

    Args:
        path: of the file.
        required: names of columns.
        expected: the columns in words, for errors.

    Raises:
        SourceError: there is no such file, it is no CSV, or a required column is missing.
    """
    try:
        table = read_csv_text(path.read_bytes())
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}; give a CSV with the columns {expected}") from error
    except ValueError as error:
        raise SourceError(f"{path}: it cannot be read as a CSV ({error}); expected the columns {expected}") from error
    if not required <= set(table.columns):
        raise SourceError(f"{path}: its columns are {','.join(table.columns)}; expected {expected}")
    return table


def read_slide_map(path: Path) -> pd.DataFrame:
    """Columns slide and, where the table has it, domain, by patch id. Raises SourceError where it is no slide map."""
    table = read_csv_file(path, {"id", "wsi"}, "id,wsi")
    columns = [name for name in ("id", "wsi", "domain") if name in table]
    table = table[table["wsi"] != ""].drop_duplicates(columns)
    repeated = table["id"][table["id"].duplicated()]
    if len(repeated):
        raise SourceError(
            f"{path}: it gives {repeated.iat[0]} two slides or domains; a patch is from one; remove one of the lines"
        )
    slides = table.set_index("id").rename(columns={"wsi": "slide"})
    return slides[["slide"]].assign(domain=known_domains(slides)) if "domain" in slides else slides[["slide"]]
