"""`torchrun` without a traceback of its own where a process that it started dies, or where it is told to stop.

Why one died is told by that process, and that one died by who follows its exit code.
"""

import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run


def main() -> None:
    """Run torchrun's command line; exit code 1 where a process dies, 128 and the signal's number where it is told."""
    try:
        run(parse_args(None))  # type: ignore[no-untyped-call]
    except ChildFailedError:
        sys.exit(1)
    except SignalException as error:
        sys.exit(128 + error.sigval)


if __name__ == "__main__":
    main()
