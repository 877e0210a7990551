"""`python -m merchant_usage`, the same as `merchant-usage`: the engine without a scheduler."""

from __future__ import annotations

import sys

from merchant_usage.cli.main import main

# Airflow executes each file below its plugins folder under the file's stem, so there this one is `__main__` too. Only
# `python -m` has found it as a module of the package.
if __name__ == "__main__" and __spec__ is not None and __spec__.name == "merchant_usage.__main__":
    sys.exit(main())
