"""Flow handlers of one's own: a flow that stops now and then, an impatient middleman.

Run from the root of a checkout, for instance
``vaurien --distant 127.0.0.1:8001 --behavior 20:examples.flow_handlers.Hiccup``.
"""

from vaurien.flow import WAKE, Begin, Close, Data
from vaurien.handlers import FlowHandler
from vaurien.options import milliseconds, percent


class Hiccup(FlowHandler):
    """Stops the flow now and then, as a backend does that collects its garbage."""

    name = "hiccup"
    options = {
        "chance": ("Chance of each chunk of data, in percent", percent, 10),
        "pause": ("How long the flow stops, in ms", milliseconds, 300),
    }

    _until = 0.0  # when the flow goes on

    def on(self, event, now):
        if isinstance(event, Data) and self.draw("hiccup") < self.options("chance") / 100:
            self._until = max(now, self._until) + self.options("pause") / 1000
        yield max(0.0, self._until - now), event


class Impatient(FlowHandler):
    """Closes a connection on which no new exchange begins for some time, as middlemen do."""

    name = "impatient"
    options = {"patience": ("Time in ms from the beginning of an exchange", milliseconds, 2000)}

    _due = 0.0  # when the present exchange has lasted too long

    def on(self, event, now):
        if event is WAKE:
            if now >= self._due:  # and no later exchange has put it off
                yield 0, Close()
            return
        if isinstance(event, Begin):
            patience = self.options("patience") / 1000
            self._due = now + patience
            yield patience, WAKE
        yield 0, event
