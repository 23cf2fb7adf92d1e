"""The package's logger: the library logs, and who runs it decides where the lines go."""

import logging

log = logging.getLogger("pcam_model")

RESULT = {"is_result": True}
"""`extra` of lines with a run's results, which the command line does not show: it prints the results at its end."""
