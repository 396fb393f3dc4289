"""Declared options: one declaration feeds the command line, the INI reader and the docs.

Law: pure (no gevent, socket or time). A handler declares
``options = {name: (description, type, default)}`` with the choices as an optional fourth item;
Vaurien's own settings are declared with the same `Option`. Text becomes a value in one place,
`Option.convert`, which says what is wrong in one sentence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from vaurien.errors import RAISED, UsageError, nearest

_TOLD = 200  # characters of a value in a sentence at most

BOOLEANS = {
    **dict.fromkeys(("yes", "on", "true", "1"), True),
    **dict.fromkeys(("no", "off", "false", "0"), False),
}


def flag(value: object) -> bool:
    """``yes``, ``on``, ``true``, ``1`` and their opposites, in any case."""
    if isinstance(value, bool):
        return value
    try:
        return BOOLEANS[str(value).strip().lower()]
    except KeyError:
        raise ValueError("is not one of yes, no, on, off, true, false, 1, 0") from None


def whole(value: object) -> int:
    """A whole number; ``1.5`` and ``True`` are refused rather than cut."""
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError("is not a whole number")
    try:
        return int(value)  # type: ignore[call-overload, no-any-return]
    except (TypeError, ValueError):
        raise ValueError("is not a whole number") from None


def number(value: object) -> float:
    """A finite number; ``nan`` and ``inf`` are refused."""
    try:
        result = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError("is not a number") from None
    if isinstance(value, bool) or not math.isfinite(result):
        raise ValueError("is not a finite number")
    return result


class Raw(NamedTuple):
    """A value as it was given, and where: ``--local``, ``VAURIEN_LOCAL``, a line of a file."""

    value: Any  # text, but for values given in Python
    where: str


#: The largest whole number that is taken: what the system, JSON's readers and statsd can hold too.
LARGEST = 2**63 - 1


class Bounded:
    """A number type with bounds, for use as an option's type: ``Bounded(number, "seconds", 0)``.

    Its name is what ``--list-handlers`` and the docs show as the option's type. Whatever is within
    the bounds has to work, not only to convert: so a number that nothing can be done with, as a
    time that no clock can tell from none, is to lie outside. With `or_zero` 0 is taken too, however
    high `low` is: it then means none.
    """

    def __init__(
        self,
        base: Callable[[object], Any],
        name: str,
        low: float = -math.inf,
        high: float = math.inf,
        or_zero: bool = False,
    ) -> None:
        self.base, self.__name__, self.low, self.high = base, name, low, high
        self.or_zero = or_zero

    def __call__(self, value: object) -> Any:
        result = self.base(value)
        if not self.low <= result <= self.high and not (self.or_zero and result == 0):
            least = f"less than {self.low}, and not 0" if self.or_zero else f"less than {self.low}"
            bounds = least if result < self.low else f"more than {self.high}"
            raise ValueError(f"is {bounds}")
        return result

    def __repr__(self) -> str:
        return f"<type {self.__name__}>"


seconds = Bounded(number, "seconds", 0, 1e9)
milliseconds = Bounded(number, "milliseconds", 0, 1e9)
percent = Bounded(number, "percent", 0, 100)
count = Bounded(whole, "count", 0, LARGEST)

#: How a declared type converts; a type that is not here is called as it is.
_CONVERTERS: dict[Any, Callable[[Any], Any]] = {bool: flag, int: whole, float: number, str: str}
_MISSING = object()


@dataclass(frozen=True)
class Option:
    """One option: its name (with ``-`` and ``_`` the same), description, type, default, choices.

    `default` is what the option is if nobody sets it; None stays None and means "not set".
    """

    name: str
    description: str
    type: Callable[[Any], Any]
    default: Any
    choices: tuple[Any, ...] = ()

    @classmethod
    def declared(cls, name: object, declaration: object) -> Option:
        """The option for one item of a class's ``options``; ValueError if it is malformed."""
        if not isinstance(name, str) or not name:
            raise ValueError(f"option name {name!r} is not a text")
        if not isinstance(declaration, (tuple, list)) or len(declaration) not in (3, 4):
            raise ValueError(
                f"option {name!r} is not declared as (description, type, default[, choices])"
            )
        description, type_, default = declaration[:3]
        if not callable(type_):
            raise ValueError(f"option {name!r} has a type that cannot be called: {type_!r}")
        choices = declaration[3] if len(declaration) == 4 else ()
        if not isinstance(choices, (tuple, list)):
            raise ValueError(f"option {name!r} has choices that are no list: {choices!r}")
        option = cls(name, str(description), type_, default, tuple(choices))
        try:
            option.get_default()
        except RAISED as error:
            raise ValueError(f"option {name!r}: its default {default!r} {error}") from None
        return option

    @property
    def key(self) -> str:
        """The name with ``-`` for ``_``, by which all sources are compared."""
        return key(self.name)

    @property
    def type_name(self) -> str:
        """What to call the type in messages and docs."""
        return getattr(self.type, "__name__", repr(self.type))

    def convert(self, value: Any, where: str) -> Any:
        """`value` as this option's type; UsageError naming `where` it was set if it is wrong."""
        try:
            return self._value(value)
        except RAISED as error:  # a user's type may raise anything
            reason = str(error) or type(error).__name__
            ours = isinstance(self.type, Bounded) or self.type in (*_CONVERTERS, whole, number)
            if not isinstance(error, ValueError) or not ours:
                reason = f"is not accepted as {self.type_name}: {reason}"
            raise UsageError(
                f"{where}: {told(value)} {reason} ({self.description.rstrip('.')};"
                f" default: {show(self.default)})"
            ) from None

    def get_default(self) -> Any:
        """The default, converted; a type of the class's own converts text only."""
        ours = isinstance(self.type, Bounded) or self.type in _CONVERTERS
        if self.default is None or not (ours or isinstance(self.default, str)):
            return self.default
        return self._value(self.default)

    def _value(self, value: Any) -> Any:
        result = _CONVERTERS.get(self.type, self.type)(value)
        if self.choices and result not in self.choices:
            raise _NotAChoice(
                f"is not a choice; {nearest(str(value), map(str, self.choices), 'choices')}"
            )
        return result


class _NotAChoice(ValueError):
    pass


def key(name: str) -> str:
    """A name as all sources compare it: ``-`` and ``_`` are the same."""
    return name.replace("_", "-")


def show(value: object) -> str:
    """A value as a user would write it on the command line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if value == math.inf:
        return "unlimited"
    return "not set" if value is None else str(value)


def told(value: object) -> str:
    """A value in a sentence: text in quotes, all else as JSON has it; a long one's beginning."""
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=repr)
    return text if len(text) <= _TOLD else f"{text[:_TOLD]}..."


def declared(options: Mapping[Any, Any]) -> dict[str, Option]:
    """All options of a class, by key; ValueError for a malformed or doubled declaration."""
    result: dict[str, Option] = {}
    for name, declaration in options.items():
        option = Option.declared(name, declaration)
        if option.key in result:
            raise ValueError(f"option {name!r} is declared twice")
        result[option.key] = option
    return result


class Values(dict[str, Any]):
    """The converted values of all options of a class, by name; callable with a name."""

    def __call__(self, name: str) -> Any:
        """The value of the option `name`; KeyError naming the declared ones."""
        try:
            return self[name]
        except KeyError:
            known = ", ".join(sorted(self)) or "none"
            raise KeyError(f"no option {name!r} is declared; declared: {known}") from None


def fill(options: Mapping[Any, Any], given: Mapping[str, Any], owner: str) -> Values:
    """The values of the declared `options` of `owner`: what is `given`, converted, or defaults.

    UsageError for a name that is not declared or a value that does not convert.
    """
    table = declared(options)
    values = Values({option.name: option.get_default() for option in table.values()})
    for name, value in given.items():
        where = f"option {name!r} of {owner!r}"
        option = find(table, name, where, "option")
        values[option.name] = option.convert(value, where)
    return values


def find(
    options: Mapping[str, Option] | Iterable[Option], name: str, where: str, kind: str
) -> Option:
    """The option called `name`; UsageError with the nearest one if there is none."""
    table = options if isinstance(options, Mapping) else {o.key: o for o in options}
    try:
        return table[key(name)]
    except KeyError:
        known = [option.name for option in table.values()]
        all_of_them = kind.replace("option", "options", 1) if "option" in kind else f"{kind}s"
        raise UsageError(
            f"{where}: there is no {kind} {told(name)}; {nearest(name, known, all_of_them)}"
        ) from None
