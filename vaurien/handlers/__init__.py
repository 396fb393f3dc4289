"""Handlers: `BaseHandler` and the built-ins, one file each, documented by their docstrings."""

from vaurien.handlers.base import BaseHandler

__all__ = ["BaseHandler"]
