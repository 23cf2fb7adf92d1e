"""The package's logger: the library logs, and who runs it decides where the lines go."""

import logging

log = logging.getLogger("pcam_model")
