"""Handlers: the base classes, and the built-ins, documented by their docstrings."""

from vaurien.flow.handler import FlowHandler
from vaurien.handlers.base import BaseHandler

__all__ = ["BaseHandler", "FlowHandler"]
