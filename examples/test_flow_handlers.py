"""Tests of the flow handlers beside this, in virtual time: nothing waits.

``python -m pytest examples/test_flow_handlers.py``, from the root of a checkout.
"""

from examples.flow_handlers import Hiccup, Impatient
from vaurien.flow import EOF, Begin, Close, Data
from vaurien.testing import play


def test_a_hiccup_stops_what_follows_too() -> None:
    sent = [(0, Data(b"one")), (0.1, Data(b"two")), (0.2, EOF)]
    assert play([Hiccup({"chance": 100, "pause": 500})], sent) == [
        (0.5, Data(b"one")),
        (1.0, Data(b"two")),
        (1.0, EOF),
    ]


def test_hiccups_are_as_frequent_as_asked_and_the_same_each_time() -> None:
    sent = [(number, Data(b"x")) for number in range(1000)]
    got = play([Hiccup({"chance": 10})], sent)
    late = sum(time > number for (time, _), (number, _) in zip(got, sent, strict=True))
    assert 60 < late < 140
    assert play([Hiccup({"chance": 10})], sent) == got


def test_patience_begins_anew_with_each_exchange() -> None:
    sent = [(0, Begin(1)), (0, Data(b"ping")), (1.5, Begin(2)), (1.5, Data(b"ping"))]
    assert play([Impatient({"patience": 2000})], sent) == [
        (0, Data(b"ping")),
        (1.5, Data(b"ping")),
        (3.5, Close()),
    ]
