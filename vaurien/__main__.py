"""``python -m vaurien``."""

import sys

from vaurien.cli.entry import vaurien

sys.exit(vaurien())
