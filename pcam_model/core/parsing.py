"""Records and JSON objects from bytes that others, or an earlier process, wrote: damage is one sentence."""

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from pcam_model.core.errors import ModelError, PcamError
from pcam_model.core.schema import Record

R = TypeVar("R", bound=Record)
RESTORE = "restore the file from a backup, or make it again"
JSON_OBJECT: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])


def parse_record(
    kind: type[R], content: bytes | str, name: object, *, remedy: str = RESTORE, error: type[PcamError] = ModelError
) -> R:
    """A record from JSON.

    Args:
        kind: its class.
        content: the JSON.
        name: the file or address that it was read from.
        remedy: what the message tells to do.
        error: the class of what is raised.

    Raises:
        error: the JSON is damaged, or a key is unknown, missing or malformed.
    """
    try:
        return kind.model_validate_json(content)
    except ValidationError as failure:
        raise error(_message(failure, name, f"a {kind.__name__}", remedy)) from None


def parse_json(
    content: bytes | str, name: object, *, remedy: str = RESTORE, error: type[PcamError] = ModelError
) -> dict[str, Any]:
    """A JSON object with any keys; arguments and errors as those of `parse_record`."""
    try:
        return JSON_OBJECT.validate_json(content)
    except ValidationError as failure:
        raise error(_message(failure, name, "a JSON object", remedy)) from None


def parse_value(
    kind: type[R], value: object, name: object, *, remedy: str = RESTORE, error: type[PcamError] = ModelError
) -> R:
    """A record from what JSON that was read before holds; arguments and errors as those of `parse_record`."""
    return parse_record(kind, json.dumps(value), name, remedy=remedy, error=error)


def read_record(kind: type[R], path: Path, *, remedy: str = RESTORE, error: type[PcamError] = ModelError) -> R:
    """The record in a file; arguments and errors as those of `parse_record`, and OSError where it cannot be read."""
    return parse_record(kind, path.read_bytes(), path, remedy=remedy, error=error)


def _message(failure: ValidationError, name: object, expected: str, remedy: str) -> str:
    first = failure.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "the whole file"
    return (
        f"{name} is malformed ({field}: {first['msg']}) and was not used; expected {expected} as pcam writes it; "
        f"{remedy}"
    )
