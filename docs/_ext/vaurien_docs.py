"""The directives by which the docs show what the code declares: never stale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import api_reference
import reference
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from tests.rivals import differences


class _Reference(SphinxDirective):
    """Puts the generated text in its own place, with its sections."""

    make: ClassVar[Callable[[], str]]

    def run(self) -> list[nodes.Node]:
        """Parse the text; the page is read again when what it is made from changes."""
        for path in reference.sources():
            self.env.note_dependency(path)
        return self.parse_text_to_nodes(type(self).make(), allow_section_headings=True)


class Handlers(SphinxDirective):
    """``.. vaurien-handlers:: KIND``, which is flow, socket, message or connect."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Parse the text; the page is read again when what it is made from changes."""
        for path in reference.sources():
            self.env.note_dependency(path)
        try:
            text = reference.handlers(self.arguments[0])
        except ValueError as error:
            raise self.error(str(error)) from None
        return self.parse_text_to_nodes(text, allow_section_headings=True)


class Common(_Reference):
    """``.. vaurien-common::``: the options that every handler takes."""

    make = staticmethod(reference.common)


class Presets(_Reference):
    """``.. vaurien-presets::``."""

    make = staticmethod(reference.lines)


class PresetOptions(_Reference):
    """``.. vaurien-preset-options::``."""

    make = staticmethod(reference.preset_options)


class Settings(_Reference):
    """``.. vaurien-settings::``."""

    make = staticmethod(reference.settings)


class Requests(SphinxDirective):
    """``.. vaurien-api-requests:: GROUP``, which is native or toxiproxy."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Parse the text; the page is read again when the API's document changes."""
        for path in api_reference.sources():
            self.env.note_dependency(path)
        text = api_reference.requests(self.arguments[0])
        return self.parse_text_to_nodes(text, allow_section_headings=True)


class Bodies(SphinxDirective):
    """``.. vaurien-api-bodies::``: what stands in the API's requests and answers."""

    def run(self) -> list[nodes.Node]:
        """Parse the text; the page is read again when the API's document changes."""
        for path in api_reference.sources():
            self.env.note_dependency(path)
        return self.parse_text_to_nodes(api_reference.bodies(), allow_section_headings=True)


class Metrics(_Reference):
    """``.. vaurien-metrics::``."""

    make = staticmethod(reference.metrics)


class Differences(SphinxDirective):
    """``.. vaurien-differences::``: from Toxiproxy."""

    def run(self) -> list[nodes.Node]:
        """Parse the table; the page is read again when the list changes."""
        self.env.note_dependency(str(differences.__file__))
        return self.parse_text_to_nodes(reference.differences())


class Tests(SphinxDirective):
    """``.. vaurien-tests:: PATTERN...``: the tests in the files of the checkout that match."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Parse the list; the page is read again when one of the files changes."""
        patterns = self.arguments[0].split()
        try:
            for path in reference.files(patterns):
                self.env.note_dependency(str(path))
            return self.parse_text_to_nodes(reference.tests(patterns))
        except ValueError as error:
            raise self.error(str(error)) from None


def setup(app: Sphinx) -> dict[str, Any]:
    """Tell Sphinx."""
    app.add_directive("vaurien-handlers", Handlers)
    app.add_directive("vaurien-common", Common)
    app.add_directive("vaurien-presets", Presets)
    app.add_directive("vaurien-preset-options", PresetOptions)
    app.add_directive("vaurien-settings", Settings)
    app.add_directive("vaurien-api-requests", Requests)
    app.add_directive("vaurien-api-bodies", Bodies)
    app.add_directive("vaurien-metrics", Metrics)
    app.add_directive("vaurien-differences", Differences)
    app.add_directive("vaurien-tests", Tests)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
