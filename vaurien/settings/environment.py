"""What the environment says: settings, options of handlers, and what is neither.

Law: a variable that means nothing is a warning and never an error, for those who run the container
sets some too (Kubernetes makes VAURIEN_PORT of a service that is called vaurien).
"""

from __future__ import annotations

from collections.abc import Mapping

from vaurien import registry
from vaurien.errors import nearest
from vaurien.options import Raw
from vaurien.settings.table import PREFIX, SETTINGS, instead
from vaurien.specification import framework

_HANDLERS = "HANDLERS_"


class Environment:
    """The environment: settings, handlers' options, and what is neither."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        known = {option.key.replace("-", "_").upper(): option.key for option in SETTINGS}
        known["CONFIG"] = "config"
        others = ("HOST",)  # vaurienctl's
        self.settings: dict[str, Raw] = {}
        self._handlers: dict[str, Raw] = {}
        self._unknown: list[str] = []
        for variable, value in sorted(environ.items()):
            if not variable.startswith(PREFIX) or variable[len(PREFIX) :] in others:
                continue
            name = variable[len(PREFIX) :]
            if name in known:
                self.settings[known[name]] = Raw(value, variable)
            elif name.startswith(_HANDLERS):
                self._handlers[name[len(_HANDLERS) :]] = Raw(value, variable)
            else:
                self._unknown.append(variable)
        self._names = [PREFIX + name for name in known]

    def handlers(self, classes: Mapping[str, type]) -> list[tuple[str, Raw]]:
        """The handlers' options among the variables, as (NAME.OPTION, value)."""
        names = {}
        for handler, cls in classes.items():
            for option in (*registry.options_of(cls).values(), *framework(cls).values()):
                words = f"{handler}_{option.name}".replace("-", "_").replace(".", "_").upper()
                names[words] = f"{handler}.{option.name}"
        result = []
        for words, raw in self._handlers.items():
            if words in names:
                result.append((names[words], raw))
            else:
                self._unknown.append(raw.where)
                self._names += [PREFIX + _HANDLERS + name for name in names]
        return result

    def warnings(self) -> list[str]:
        """A sentence for each variable that means nothing (Kubernetes makes such)."""
        return [
            f"{variable} in the environment is not a setting;"
            f" {instead(variable[len(PREFIX) :]) or nearest(variable, self._names)}"
            for variable in self._unknown
        ]
