"""Framers: which exchange a byte belongs to. One module or package each; all are pure."""

from __future__ import annotations

#: The protocol that tells nothing apart; the pump does for itself what its framer says.
TCP = "tcp"


def named(text: str) -> str:
    """The name of a protocol, as a setting: ``tcp``, or a dotted path; ValueError if neither."""
    if text != TCP and "." not in text:
        raise ValueError(f"there is {TCP!r}; for one of your own, write package.module.Class")
    return text
