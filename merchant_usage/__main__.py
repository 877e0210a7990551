"""The command line: the same engine without a scheduler. `python -m merchant_usage --help`."""

from __future__ import annotations

import sys

from merchant_usage.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
