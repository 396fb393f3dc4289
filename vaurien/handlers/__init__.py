"""Handlers: the base classes, and the built-ins, documented by their docstrings."""

from vaurien.handlers.base import BaseHandler
from vaurien.handlers.flow import FlowHandler

__all__ = ["BaseHandler", "FlowHandler"]
