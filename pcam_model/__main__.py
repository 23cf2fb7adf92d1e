"""`python -m pcam_model`: the command line `pcam`."""

from pcam_model.cli.main import main

main()
