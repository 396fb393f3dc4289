"""The engine of flow handlers: events, and the chain they travel through."""

from vaurien.flow.events import EOF, OPEN, WAKE, Begin, Close, Data, Event, Reset

__all__ = ["EOF", "OPEN", "WAKE", "Begin", "Close", "Data", "Event", "Reset"]
