"""Where Vaurien differs from Toxiproxy on purpose: the one list of it.

The table in `docs/toxiproxy.rst` is made from it. A test that shows a difference says so with
`differs`; a recording that Vaurien answers otherwise names the difference (`tests.wire`). Law: what
is not listed is the same, and what is listed is tested: `tests/rivals/test_differences.py` holds
both together. Nothing is imported here that the docs have not got.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

T = TypeVar("T", bound=Callable[..., object])


class Difference(NamedTuple):
    """What Vaurien does, and why it does not do as Toxiproxy: both reStructuredText."""

    name: str
    here: str
    why: str


#: In the order of the table.
LIST = (
    Difference(
        "unknown-fields",
        (
            "An unknown field or attribute, a negative time, and a ``toxicity`` outside 0 to 1 "
            "are refused, with 400"
        ),
        "A misspelt fault that does nothing makes a test pass that tests nothing.",
    ),
    Difference(
        "toxics-applied",
        "``toxics`` in ``/populate`` and in a configuration file are applied",
        "Toxiproxy drops them in silence.",
    ),
    Difference(
        "populate-all",
        (
            "``/populate`` checks its whole list, toxics included, before it makes anything; a "
            "proxy that cannot be replaced stays"
        ),
        "A list that is wrong changes nothing.",
    ),
    Difference(
        "populate-port-0",
        "In ``/populate``, port 0 matches the port that the proxy has got",
        "Populating twice changes nothing.",
    ),
    Difference(
        "disabled-listen",
        "A disabled proxy shows the address at which it listened, and listens at again",
        "Toxiproxy shows what the last change said, such as ``0.0.0.0`` for ``[::]``.",
    ),
    Difference(
        "default-listen",
        "Without ``listen`` a proxy listens on loopback, at any free port",
        "The network need not see it.",
    ),
    Difference(
        "unix",
        "``listen`` and ``upstream`` cannot be unix sockets",
        "A request names no file. In a configuration file they can.",
    ),
    Difference(
        "errors-json",
        "Errors are ``application/json``, those for unknown paths and methods too",
        "They are JSON.",
    ),
    Difference(
        "metrics",
        "``/metrics`` is always there",
        "It needs no flag to be set before the day it is wanted.",
    ),
    Difference(
        "left-out",
        (
            "``bandwidth`` without a ``rate`` has no limit; ``slicer`` with ``average_size`` 0 "
            "cuts nothing"
        ),
        (
            "A toxic without attributes injects no fault. In Toxiproxy the one lets "
            "nothing pass, and the other ends the whole server at the first byte. With a ``rate`` "
            "of 0 that is given, nothing passes here either, as Testcontainers' modules rely on."
        ),
    ),
    Difference(
        "timeout-clock",
        (
            "``timeout`` counts from when it comes to the connection, whatever is sent meanwhile, "
            "and no end of the stream cuts it short"
        ),
        (
            "Toxiproxy starts anew with each chunk, and never comes to an end on a busy "
            "connection; an end of the stream ends the connection at once, with ``timeout`` 0 "
            "too. So one who waits for a backend that has gone would see no time-out."
        ),
    ),
    Difference(
        "reset-peer-open",
        (
            "``reset_peer`` on a connection that was open before sends a RST to both sides, as on "
            "a new one"
        ),
        "Toxiproxy sends a FIN there.",
    ),
    Difference(
        "reset-peer-waits",
        (
            "While ``reset_peer`` waits, what comes in its stream is read and dropped; when it is "
            "removed after the first data, the reset comes at once, and when it is changed, it "
            "counts anew"
        ),
        "Toxiproxy does not read on, and its API waits until the reset has come.",
    ),
    Difference(
        "polite-ends",
        (
            "Only ``reset_peer`` itself resets a connection on which it stands; other ends stay "
            "polite"
        ),
        "In Toxiproxy all ends of that connection are resets, whatever was drawn.",
    ),
    Difference(
        "latency-end",
        "``latency`` delays an end of the stream as it does data",
        "In Toxiproxy an end that comes alone is not delayed.",
    ),
    Difference(
        "limit-data-end",
        (
            "When ``limit_data`` has let its bytes through, the sender gets a FIN, and what it "
            "still sends is discarded"
        ),
        "In Toxiproxy it gets a RST if it has sent more.",
    ),
    Difference(
        "slicer-sizes",
        (
            "``slicer`` draws sizes in ``average_size`` ± ``size_variation``, and waits between "
            "pieces"
        ),
        (
            "Toxiproxy halves a chunk until the pieces are small enough, so that they are smaller "
            "than ``average_size`` mostly, and it waits behind the last piece, too."
        ),
    ),
    Difference(
        "bandwidth-pieces",
        "``bandwidth`` sends pieces of 10 ms",
        "Toxiproxy sends such of 100 ms.",
    ),
    Difference(
        "half-close",
        "When one side half-closes, that direction ends, and the other one goes on",
        (
            "In Toxiproxy the end of one direction ends both, and a reply is lost that comes "
            "after the client has half-closed."
        ),
    ),
    Difference(
        "toxicity-once",
        "``toxicity`` is drawn once for each connection and toxic",
        "Toxiproxy draws it again whenever a toxic is changed, added or removed behind it.",
    ),
    Difference(
        "stream-attribute",
        "A ``stream`` among the attributes is refused; it stands beside them",
        "Toxiproxy drops it, and the toxic acts on the wrong stream.",
    ),
    Difference(
        "empty-address",
        (
            "In a change, an empty ``listen`` or ``upstream`` is refused. (When a proxy is made, "
            "an empty ``listen`` counts as missing, since Go's client sends every field)"
        ),
        "Toxiproxy listens at all addresses of the machine then, or has no backend.",
    ),
    Difference(
        "backend-address",
        (
            "An ``upstream`` that can be no address, or whose port has a name that this machine "
            "does not know, is refused"
        ),
        "In Toxiproxy each connection fails later.",
    ),
    Difference(
        "circles",
        "A backend that is the proxy itself, another that leads back to it, or the API is refused",
        "One connection would take all descriptors. Toxiproxy makes such proxies.",
    ),
    Difference(
        "names",
        (
            "The name of a proxy or toxic has 255 characters at most, and neither slashes nor "
            "control characters"
        ),
        "It stands in paths. Toxiproxy makes such a proxy, and cannot find it again.",
    ),
    Difference(
        "fractions",
        "A number may have a fraction: ``1000.0``, ``0.5``",
        "Toxiproxy refuses them for attributes.",
    ),
    Difference(
        "null-attributes",
        "``null`` and then an object for ``attributes`` gives the object",
        "Toxiproxy refuses that.",
    ),
    Difference(
        "logger",
        "A proxy has no ``Logger``",
        "Toxiproxy shows an empty one, which its API's text does not know.",
    ),
    Difference(
        "populate-empty",
        "``/populate`` of nothing answers an empty list of proxies",
        "Toxiproxy answers ``null``.",
    ),
    Difference(
        "populate-refused",
        "A ``/populate`` that is refused with 400 answers the error, and no list of proxies",
        "Nothing was tried. Toxiproxy answers ``null`` beside the error.",
    ),
    Difference(
        "version",
        (
            "``/version`` has the version of Vaurien, in numbers only; the header ``Vaurien`` has "
            "all of it"
        ),
        "Clients read it with parsers of versions.",
    ),
    Difference(
        "limits",
        "A proxy has 200 toxics at most, a list for ``/populate`` 10,000 proxies",
        "No request holds up the traffic.",
    ),
    Difference(
        "body-words",
        "What is wrong in a body is said in Vaurien's words, after ``bad request body:``",
        "They name the field, the value and the nearest right one.",
    ),
    Difference(
        "type-hint",
        "After ``invalid toxic type`` comes the nearest that there is",
        "So one sees what to write.",
    ),
    Difference(
        "in-use-by",
        "After ``address already in use`` comes the proxy that has it, if one of them has",
        "So one sees what to do.",
    ),
    Difference(
        "root",
        "``/`` is there, and says what this is",
        "It leads to the description of the API.",
    ),
    Difference(
        "host",
        "Requests by a name that is not this machine's are refused (:ref:`safety`)",
        "No web page can drive it.",
    ),
)
BY_NAME = {one.name: one for one in LIST}


def differs(*names: str) -> Callable[[T], T]:
    """Marks a test that shows these differences; KeyError for one that is not listed."""
    for name in names:
        BY_NAME[name]
    return lambda test: test
