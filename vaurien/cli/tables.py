"""How ``vaurienctl`` writes: aligned tables on a terminal, lines with tabs in a pipe, or JSON.

Law: what comes from the API cannot steer the terminal, and a cell is never two lines or two cells.
A table is as wide as its terminal at most, whose columns are shortened for that; nothing is in a
pipe or in JSON.
"""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

Row = Sequence[object]
_GAP = "  "  # between columns
_FIRM = ("name", "proxy", "local", "distant", "client")  # columns that are shortened last
_LEAST = 3  # columns of the terminal that a column is shortened to at most


class Output:
    """Standard output, as JSON if `as_json`."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self.terminal = sys.stdout.isatty()

    def table(self, header: Sequence[str], rows: Iterable[Row], prose: bool = False) -> None:
        """A table: with its header and aligned on a terminal, else a line of tabs for each row.

        `prose` says that the last column is text, which goes on in the next line.
        """
        lines = aligned(header, rows, columns(), prose) if self.terminal else map(tabs, rows)
        for line in lines:
            self.line(line)

    def pairs(self, rows: Iterable[Row]) -> None:
        """Rows without a header, each in full."""
        for line in aligned((), rows) if self.terminal else map(tabs, rows):
            self.line(line)

    def json(self, value: Any) -> None:
        """A JSON document, spread over lines on a terminal."""
        self.line(_json(value, indent=2 if self.terminal else None))

    def json_line(self, value: Any) -> None:
        """A JSON document in a line of its own, written at once: one of many."""
        self.line(_json(value))
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
    return plain(text)


def plain(text: str) -> str:
    """A text in one line, without what steers a terminal."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)


def _json(value: Any, indent: int | None = None) -> str:
    """JSON whose text is as it is, but for what steers a terminal."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def words(options: dict[str, Any] | None) -> str:
    """Options as they are given: ``sleep=2 before=yes``."""
    return " ".join(f"{name}={cell(value)}" for name, value in (options or {}).items())


def tabs(row: Row) -> str:
    """A row for a pipe."""
    return "\t".join(map(cell, row))


def columns() -> int:
    """How wide the terminal is; 0 if it does not say."""
    return shutil.get_terminal_size((0, 0)).columns


def aligned(
    header: Sequence[str], rows: Iterable[Row], width: int = 0, prose: bool = False
) -> list[str]:
    """The lines of a table; numbers stand at the right.

    It is made as wide as `width`, if that is given and can be; with `prose` by the last column,
    which then has more lines, and else by shortening.
    """
    body = [list(row) for row in rows]
    texts = [[cell(value) for value in row] for row in body]
    numbers = [_numbers(column) for column in zip(*body, strict=True)]
    if header:
        texts.insert(0, [name.upper() for name in header])
        numbers = numbers or [False] * len(header)
    widths = [max(map(wide, column)) for column in zip(*texts, strict=True)]
    room = width - len(_GAP) * (len(widths) - 1) if width else sum(widths)
    if prose and widths:
        widths[-1] = max(min(widths[-1], room - sum(widths[:-1])), 20)
        texts = [line for row in texts for line in _continued(row, widths[-1])]
    else:
        cells = texts[bool(header) :] or [[""] * len(widths)]
        least = [max(map(wide, column)) for column in zip(*cells, strict=True)]
        names = header or [""] * len(least)
        firm = [low if name in _FIRM else 0 for name, low in zip(names, least, strict=True)]
        for most in (least, firm, [0] * len(least)):  # what stands above a column first
            _shrink(widths, room, most)
    return [
        _GAP.join(
            _placed(text, size, right)
            for text, size, right in zip(row, widths, numbers, strict=True)
        ).rstrip()
        for row in texts
    ]


def _shrink(widths: list[int], room: int, least: Sequence[int]) -> None:
    """Take from the widest column, again and again, until all fit; none becomes less than that."""
    while sum(widths) > room:
        ample = [n for n, low in enumerate(least) if widths[n] > max(low, _LEAST)]
        if not ample:
            return
        widths[max(ample, key=widths.__getitem__)] -= 1


def wide(text: str) -> int:
    """How many columns of a terminal a text takes: CJK takes two, what combines none."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(c: str) -> int:
    if unicodedata.category(c) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(c) in "WF" else 1


def cut(text: str, width: int) -> str:
    """As much of a text as fits into so many columns."""
    if text.isascii():
        return text[:width]
    ends = accumulate(map(_columns, text))
    return "".join(c for c, end in zip(text, ends, strict=True) if end <= width)


def _placed(text: str, width: int, right: bool) -> str:
    """A text in its column, shortened if need be."""
    text = text if wide(text) <= width else f"{cut(text, width - 1)}…"
    space = " " * (width - wide(text))
    return space + text if right else text + space


def _continued(row: list[str], width: int) -> Iterator[list[str]]:
    """A row, and what of its last cell does not fit below it."""
    text = row[-1]  # what is wide may be as wide as twice its length
    first, *more = textwrap.wrap(text, width if wide(text) == len(text) else width // 2) or [""]
    yield [*row[:-1], first]
    for line in more:
        yield [*[""] * (len(row) - 1), line]


def _numbers(column: Sequence[object]) -> bool:
    """Whether a column is of numbers; some may be missing."""
    given = [value for value in column if value is not None]
    return bool(given) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in given
    )
