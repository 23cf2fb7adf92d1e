"""Text of others is shown without secrets and without control characters."""

import logging

import pytest

from pcam_model.core.errors import ConfigError, DiskFullError, PcamError, TransientError
from pcam_model.core.log import log
from pcam_model.core.plain_text import hide_secrets, plain

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:hunter2@host:9000/a", "https://***@host:9000/a"),
        ("https://hunter2@host", "https://***@host"),
        ("https://a:hun@hunter2@host/x@y", "https://***@host/x@y"),
        ("http://host/a?token=hunter2", "http://host/a?token=***"),
        ("http://host/a?x=hunter2&token=hunter2#end", "http://host/a?x=***&token=***#end"),
        ("GET /a?sig=hunter2 (Caused by X)", "GET /a?sig=*** (Caused by X)"),
        ("s3://bucket/prefix", "s3://bucket/prefix"),
        ("file:///home/a@b/store", "file:///home/a@b/store"),
        ("is it so? a=b; user@host", "is it so? a=b; user@host"),
    ],
)
def test_an_address_is_shown_without_its_secrets(text: str, shown: str) -> None:
    assert hide_secrets(text) == shown
    assert hide_secrets(f"see {text}") == f"see {shown}"


@pytest.mark.parametrize("kind", [PcamError, ConfigError, DiskFullError, TransientError])
def test_no_error_shows_them(kind: type[Exception]) -> None:
    assert SECRET not in str(kind(f"https://a:{SECRET}@host/?token={SECRET} cannot be reached"))


def test_no_log_line_shows_them(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "pcam_model"):
        log.info("from %s, %d objects", f"https://a:{SECRET}@host/?token={SECRET}", 3)
    assert caplog.messages == ["from https://***@host/?token=***, 3 objects"]


def test_control_characters_are_written_as_codes() -> None:
    assert plain("a\x1b[2J\n\u202eé\x9b") == r"a\x1b[2J\n\u202eé\x9b"
