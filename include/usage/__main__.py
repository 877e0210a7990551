"""The command line: the same engine without a scheduler. `python -m include.usage --help`."""

from __future__ import annotations

import sys

from include.usage.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
