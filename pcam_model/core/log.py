"""The package's logger: the library logs, and who runs it decides where the lines go."""

import logging

from pcam_model.core.plain_text import hide_secrets

log = logging.getLogger("pcam_model")

RESULT = {"is_result": True}
"""`extra` of lines with a run's results, which the command line does not show: it prints the results at its end."""


def _hide_secrets(record: logging.LogRecord) -> bool:
    """Write a line's addresses without their secrets, before any handler has it."""
    message = record.getMessage()
    if (hidden := hide_secrets(message)) != message:
        record.msg, record.args = hidden, ()
    return True


log.addFilter(_hide_secrets)
