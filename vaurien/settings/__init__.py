"""Vaurien's settings: defaults < INI file < environment < command line, resolved once.

Law: whatever is wrong is found here, before anything listens, and every value knows where it came
from. Sources are compared with ``-`` and ``_`` the same.

`table` declares them, `environment` and `proxies` read what was written, `resolving` makes
`Settings` of it, `replayed` puts a journal's decisions in, `printed` shows the result.
"""

from vaurien.settings.in_force import Settings
from vaurien.settings.resolving import resolve
from vaurien.settings.table import DEFAULT, PREFIX, SETTINGS

__all__ = ["DEFAULT", "PREFIX", "SETTINGS", "Settings", "resolve"]
