"""``python -m omi_async`` is ``omi-async``."""

from __future__ import annotations

import sys

from omi_async.cli import main

if __name__ == "__main__":
    sys.exit(main())
