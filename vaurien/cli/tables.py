"""How ``vaurienctl`` writes: aligned tables on a terminal, lines with tabs in a pipe, or JSON.

Law: what comes from the API cannot steer the terminal, and a cell is never two lines or two cells.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

Row = Sequence[object]


class Output:
    """Standard output, as JSON if `as_json`."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self.terminal = sys.stdout.isatty()

    def table(self, header: Sequence[str], rows: Iterable[Row]) -> None:
        """A table: with its header and aligned on a terminal, else a line of tabs for each row."""
        for line in aligned(header, rows) if self.terminal else map(tabs, rows):
            self.line(line)

    def pairs(self, rows: Iterable[Row]) -> None:
        """Rows without a header."""
        for line in aligned((), rows) if self.terminal else map(tabs, rows):
            self.line(line)

    def json(self, value: Any) -> None:
        """A JSON document, spread over lines on a terminal."""
        self.line(json.dumps(value, indent=2 if self.terminal else None, ensure_ascii=False))

    def json_line(self, value: Any) -> None:
        """A JSON document in a line of its own, written at once: one of many."""
        self.line(json.dumps(value, ensure_ascii=False))
        self.flush()

    def line(self, text: str) -> None:
        """A line."""
        sys.stdout.write(text + "\n")

    def flush(self) -> None:
        """Write what is held."""
        sys.stdout.flush()


def cell(value: object) -> str:
    """A value as one cell: ``-`` for nothing, no tabs, ends of lines or escapes."""
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.15g}"
    if isinstance(value, list):
        return ",".join(map(cell, value))
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)


def words(options: dict[str, Any] | None) -> str:
    """Options as they are given: ``sleep=2 before=yes``."""
    return " ".join(f"{name}={cell(value)}" for name, value in (options or {}).items())


def tabs(row: Row) -> str:
    """A row for a pipe."""
    return "\t".join(map(cell, row))


def aligned(header: Sequence[str], rows: Iterable[Row]) -> list[str]:
    """The lines of a table; numbers stand at the right."""
    body = [list(row) for row in rows]
    texts = [[cell(value) for value in row] for row in body]
    numbers = [_numbers(column) for column in zip(*body, strict=True)]
    if header:
        texts.insert(0, [name.upper() for name in header])
        numbers = numbers or [False] * len(header)
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return [
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, widths, numbers, strict=True)
        ).rstrip()
        for row in texts
    ]


def _numbers(column: Sequence[object]) -> bool:
    """Whether a column is of numbers; some may be missing."""
    given = [value for value in column if value is not None]
    return bool(given) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in given
    )
