"""``python -m sync_pipeline`` is the command ``sync-pipeline``."""

import sys

from sync_pipeline.cli import main

if __name__ == "__main__":
    sys.exit(main())
