"""INI files: read by konfig, with every fault of a file told by name.

Law: a file that is missing, unreadable or wrong is a `UsageError`; nothing in it is dropped, every
value knows the file it stands in, and none is converted here (``007`` stays text).
"""

from __future__ import annotations

import ast
import configparser
import os
import warnings
from typing import Any

from vaurien.errors import UsageError, nearest
from vaurien.options import Raw

with warnings.catch_warnings():
    # konfig 1.1 has regular expressions in plain strings, which Python 3.12 warns of on compiling
    warnings.simplefilter("ignore", SyntaxWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    from konfig import Config, ExtendedEnvironmentInterpolation

_FRAMEWORK = ("extends", "overrides")  # konfig's own words in [DEFAULT]


class _Interpolation(ExtendedEnvironmentInterpolation):  # type: ignore[misc]
    """konfig's ``${VAR}``, lists and quotes, without its guesses at types.

    ``${NAME}`` is looked for in the environment, then in the same section, then in ``[DEFAULT]``.
    """

    def before_get(
        self, parser: Any, section: str, option: str, value: str, defaults: Any
    ) -> str | list[str]:
        here = os.path.dirname(parser.filename) or os.curdir
        known = {**defaults, **self.environment, "HERE": here.replace("$", "$$")}
        text = configparser.ExtendedInterpolation.before_get(
            self, parser, section, option, value, known
        )
        lines = [_unquoted(line.strip()) for line in text.split("\n")]
        return lines[0] if len(lines) == 1 else [line for line in lines if line]


class _Config(Config):  # type: ignore[misc]
    """konfig's Config; files that extend others do so relative to themselves."""

    def __init__(self, filename: str, where: str, seen: tuple[str, ...] = ()) -> None:
        self._seen = (*seen, os.path.realpath(filename))
        self._where = where
        self._origin: dict[tuple[str, str], str] = {}
        super().__init__(filename)

    def _configparser_kwargs(self) -> dict[str, Any]:
        return {"interpolation": _Interpolation(), "comment_prefixes": ("#", ";")}

    def read(self, filenames: Any, encoding: str | None = None) -> list[str]:
        # configparser's own passes over files that cannot be opened
        try:
            with open(filenames, encoding="utf-8-sig") as file:
                self._read(file, filenames)
        except OSError as error:
            raise UsageError(
                f"{self._where}: cannot read {filenames!r}: {error.strerror}; give the path of an"
                " INI file"
            ) from None
        except UnicodeDecodeError as error:
            raise UsageError(
                f"{self._where}: {filenames!r} is not UTF-8 text (byte {error.start});"
                " save it as UTF-8"
            ) from None
        except configparser.Error as error:
            raise UsageError(f"{filenames}: {_plain(error)}") from None
        return [filenames]

    def _extend(self, filename: Any, override: bool = False) -> None:
        where = f"{self.filename}: [DEFAULT] {'overrides' if override else 'extends'}"
        for name in filename if isinstance(filename, list) else [filename]:
            path = os.path.join(os.path.dirname(self.filename), name)
            if os.path.realpath(path) in self._seen:
                raise UsageError(f"{where}: {name!r} comes back to itself; leave one of them out")
            if not os.path.isfile(path):
                raise UsageError(
                    f"{where}: there is no file {path!r}; give a path relative to this file"
                )
            self._merge(_Config(path, where, self._seen), override)

    def _merge(self, other: _Config, override: bool) -> None:
        here = (os.path.dirname(other.filename) or os.curdir).replace("$", "$$")
        for section, option, raw in other.raw():
            if option in _FRAMEWORK and section == self.default_section:
                continue
            if section != self.default_section and not self.has_section(section):
                self.add_section(section)
                self._origin[section, ""] = other.origin(section, "")
            own = self._own(section)
            if override or option not in own:
                own[option] = raw.replace("${HERE}", here)
                self._origin[section, option] = other.origin(section, option)

    def _own(self, section: str) -> dict[str, str]:
        """What stands in one section itself, without ``[DEFAULT]``."""
        own: dict[str, str] = (
            self._defaults if section == self.default_section else self._sections[section]
        )
        return own

    def raw(self) -> list[tuple[str, str, str]]:
        """All that stands in the file: section, option, text as written."""
        return [
            (section, option, raw or "")
            for section in (self.default_section, *self.sections())
            for option, raw in self._own(section).items()
        ]

    def origin(self, section: str, option: str) -> str:
        """The file in which an option stands."""
        return self._origin.get((section, option)) or str(self.filename)

    def value(self, section: str, option: str) -> Raw:
        """One value, a list joined by commas."""
        where = f"{self.origin(section, option)}: [{section}] {option}"
        try:
            value = self.get(section, option)
        except configparser.Error as error:
            raise UsageError(f"{where}: {_plain(error)}") from None
        return Raw(",".join(value) if isinstance(value, list) else value, where)


class Section(dict[str, Raw]):
    """A section's options: text, and the place where it stands. `where` is the section's place."""

    def __init__(self, options: dict[str, Raw], where: str) -> None:
        super().__init__(options)
        self.where = where


def read(path: str, where: str = "--config") -> dict[str, Section]:
    """The sections of the file at `path`: option to text, and the place where it stands.

    What stands in ``[DEFAULT]`` is there for ``${...}`` and does not show up in the sections.
    `where` is who named the file; UsageError for all that is wrong with it.
    """
    config = _Config(path, where)
    for name in config.defaults():
        hint = nearest(name, _FRAMEWORK)
        if name not in _FRAMEWORK and hint.startswith("did you mean"):
            raise UsageError(
                f"{config.origin(config.default_section, name)}: [DEFAULT] {name}: {hint}"
            )
    return {
        section: Section(
            {option: config.value(section, option) for option in config._own(section)},
            f"{config.origin(section, '')}: [{section}]",
        )
        for section in config.sections()
    }


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _plain(error: configparser.Error) -> str:
    """What configparser says, in one line, without the file and the place."""
    if isinstance(error, configparser.MissingSectionHeaderError):
        return (
            f"line {error.lineno}: {error.line.strip()!r} is before the first section; write"
            " [vaurien] above it"
        )
    if isinstance(error, configparser.ParsingError):
        line, text = error.errors[0]
        return f"line {line}: {ast.literal_eval(text).strip()!r} is not NAME = VALUE"
    if isinstance(error, configparser.DuplicateSectionError):
        return f"line {error.lineno}: section [{error.section}] stands there twice"
    if isinstance(error, configparser.DuplicateOptionError):
        return f"line {error.lineno}: [{error.section}] {error.option} is given twice"
    if isinstance(error, configparser.InterpolationMissingOptionError):
        return (
            f"${{{error.reference}}} is neither in the environment, in this section nor in"
            " [DEFAULT]"
        )
    return f"{error.message.splitlines()[0]}; write $$ for $"
