"""INI files: read by konfig, with every fault of a file told by name.

Law: a file that is missing, unreadable or wrong is a `UsageError`; nothing in it is dropped, and no
value is converted here (``007`` stays text: `vaurien.options` converts).
"""

from __future__ import annotations

import configparser
import os
import warnings
from typing import Any

from vaurien.errors import UsageError

with warnings.catch_warnings():
    # konfig 1.1 has regular expressions in plain strings, which Python 3.12 warns of on compiling
    warnings.simplefilter("ignore", SyntaxWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    from konfig import Config, ExtendedEnvironmentInterpolation

_FRAMEWORK = ("extends", "overrides")  # konfig's own words in [DEFAULT]


class _Interpolation(ExtendedEnvironmentInterpolation):  # type: ignore[misc]
    """konfig's ``${VAR}``, lists and quotes, without its guesses at types."""

    def _unserialize(self, value: Any) -> Any:
        if isinstance(value, str):
            value = value.strip()
            if len(value) > 1 and value[0] == value[-1] == '"':
                return value[1:-1]
        return value


class _Config(Config):  # type: ignore[misc]
    """konfig's Config; files that extend others do so relative to themselves."""

    def __init__(self, filename: str, seen: tuple[str, ...] = ()) -> None:
        self._seen = (*seen, os.path.realpath(filename))
        super().__init__(filename)

    def _configparser_kwargs(self) -> dict[str, Any]:
        return {**super()._configparser_kwargs(), "interpolation": _Interpolation()}

    def read(self, filenames: Any, encoding: str | None = None) -> list[str]:
        # configparser's own passes over files that cannot be opened
        try:
            with open(filenames, encoding="utf-8-sig") as file:
                self._read(file, filenames)
        except OSError as error:
            raise UsageError(
                f"--config: cannot read {filenames!r}: {error.strerror}; give the path of an INI"
                " file"
            ) from None
        except UnicodeDecodeError as error:
            raise UsageError(
                f"--config: {filenames!r} is not UTF-8 text (byte {error.start}); save it as UTF-8"
            ) from None
        return [filenames]

    def _extend(self, filename: Any, override: bool = False) -> None:
        for name in filename if isinstance(filename, list) else [filename]:
            path = os.path.join(os.path.dirname(self.filename), name)
            if os.path.realpath(path) in self._seen:
                raise UsageError(f"{self.filename}: [DEFAULT] extends: {name!r} extends itself")
            if not os.path.isfile(path):
                raise UsageError(
                    f"{self.filename}: [DEFAULT] extends: there is no file {path!r};"
                    " the path is relative to the file that extends"
                )
            self._merge(_Config(path, self._seen), override)

    def _merge(self, other: _Config, override: bool) -> None:
        here = os.path.dirname(other.filename) or os.curdir
        for section, proxy in other.items():
            if section != self.default_section and not self.has_section(section):
                self.add_section(section)
            inherited = set() if section == self.default_section else set(other.defaults())
            for option in proxy:
                own = option not in inherited or option in other._sections.get(section, {})
                if not own or option in _FRAMEWORK:
                    continue
                if override or not self.has_option(section, option):
                    raw = other.get(section, option, raw=True)
                    self.set(section, option, raw.replace("${HERE}", here.replace("$", "$$")))

    def set(self, section: str, option: str, value: Any = None) -> None:
        # konfig's before_set would check `value` as if it were a literal
        target = self._defaults if section == self.default_section else self._sections[section]
        target[option] = value


def read(path: str) -> dict[str, dict[str, str]]:
    """The sections of the file at `path`: option to text; a list is joined by commas.

    What stands in ``[DEFAULT]`` is there for ``${...}`` and does not show up in the sections.
    """
    try:
        config = _Config(path)
        return {section: _section(config, section) for section in config.sections()}
    except configparser.Error as error:
        raise UsageError(f"{path}: {_plain(error)}") from None


def _section(config: _Config, section: str) -> dict[str, str]:
    result = {}
    for option in config._sections[section]:
        value = config.get(section, option)
        result[option] = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return result


def _plain(error: configparser.Error) -> str:
    """What configparser says, in one line."""
    if isinstance(error, configparser.MissingSectionHeaderError):
        return f"line {error.lineno}: {error.line.strip()!r} stands before any [section]"
    if isinstance(error, configparser.ParsingError):
        line, text = error.errors[0]
        return f"line {line}: {text.strip(chr(39))} is not NAME = VALUE; comments begin with #"
    if isinstance(error, configparser.DuplicateSectionError):
        return f"line {error.lineno}: section [{error.section}] stands there twice"
    if isinstance(error, configparser.DuplicateOptionError):
        return f"line {error.lineno}: [{error.section}] {error.option} is given twice"
    if isinstance(error, configparser.InterpolationMissingOptionError):
        return (
            f"[{error.section}] {error.option}: ${{{error.reference}}} is neither in [DEFAULT], in"
            " this section nor in the environment"
        )
    if isinstance(error, configparser.InterpolationError):
        return f"[{error.section}] {error.option}: {error.message.splitlines()[0]}; write $$ for $"
    return str(error).splitlines()[0]
