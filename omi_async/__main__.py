"""``python -m omi_async`` is ``omi-async``."""

import sys

from omi_async.cli import main

if __name__ == "__main__":
    sys.exit(main())
