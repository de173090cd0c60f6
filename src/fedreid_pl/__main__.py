"""Runs the command line with `python -m fedreid_pl`."""

import sys

from fedreid_pl.cli import main

sys.exit(main())
