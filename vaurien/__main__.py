"""``python -m vaurien``."""

import sys

from vaurien.cli.main import main

sys.exit(main())
