"""A plan: what handlers may stand together, what an option is, what a toxic may be."""

from __future__ import annotations

import itertools
from math import nan
from typing import Any, ClassVar

import pytest

from vaurien.address import Address, Networks
from vaurien.behavior import ALWAYS, Points, parse
from vaurien.errors import UsageError
from vaurien.exchange.picks import staying
from vaurien.flow import Event
from vaurien.handlers import BaseHandler, FlowHandler
from vaurien.options import Raw
from vaurien.plan import Plan, Specification, Toxic, framework, order, specify
from vaurien.registry import builtins


def specification(name: str, **options: Any) -> Specification:
    """A built-in handler with some options."""
    return Specification(name, builtins()[name], options)


def plan(behavior: str = "", **more: Any) -> Plan:
    """A plan of built-in handlers."""
    parsed = parse(behavior or "0:dummy", "--behavior")
    names = {*parsed.names, *(more["on_connect"].names if "on_connect" in more else ())}
    given = more.pop("handlers", {})
    handlers = {name: given.get(name) or specification(name) for name in names - {"dummy"}}
    return Plan(Address("127.0.0.1"), Address("127.0.0.1", 1), parsed, handlers, 1, **more)


def refused(behavior: str = "", **more: Any) -> str:
    """The sentence with which a plan is refused."""
    with pytest.raises(UsageError) as caught:
        plan(behavior, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Together


@pytest.mark.parametrize(
    "behavior",
    [
        "10:latency+bandwidth",
        "10:latency+bandwidth+error",
        "10:latency,5:bandwidth+latency",
        "10:latency+cut,5:bandwidth+cut",
        "100:dummy",
    ],
)
def test_handlers_that_fit_together_are_accepted(behavior: str) -> None:
    plan(behavior)


@pytest.mark.parametrize("behavior", ["10:error+transient", "10:latency+error+transient"])
def test_two_socket_handlers_exclude_each_other(behavior: str) -> None:
    sentence = refused(behavior)
    for name in behavior[3:].split("+")[-2:]:
        assert repr(name) in sentence
    assert "take one of them" in sentence


@pytest.mark.parametrize("behavior", ["10:error+latency", "10:latency+transient+bandwidth"])
def test_a_socket_handler_stands_last(behavior: str) -> None:
    assert "write it last" in refused(behavior)


def test_the_combination_is_what_is_named() -> None:
    assert "'error+transient'" in refused("10:latency,10:error+transient")


def test_names_stand_in_a_chain_as_the_behavior_writes_them() -> None:
    found = order(parse("1:latency+bandwidth,1:bandwidth+cut,1:pause", "here"), "here")
    assert found["latency"] < found["bandwidth"] < found["cut"]
    assert set(found) == {"latency", "bandwidth", "cut", "pause"}


@pytest.mark.parametrize(
    ("behavior", "stay"),
    [
        ("1:b,1:a", ["a", "b", "c"]),  # never together: where they stand is left open
        ("1:c+x,1:x+y,1:b", ["a", "b", "c"]),
        ("1:b+a", ["b", "a"]),
        ("1:c+x+a", ["c", "x", "a"]),
        ("1:b+a,1:c", ["b", "a", "c"]),  # c is in nobody's way
    ],
)
def test_handlers_that_stand_in_a_chain_stay_where_they_are_if_they_may(
    behavior: str, stay: list[str]
) -> None:
    found = order(parse(behavior, "here"), "here", ["a", "b", "c"])
    assert [name for name in sorted(found, key=found.__getitem__) if name in stay] == stay


@pytest.mark.parametrize(
    "behavior",
    ["1:latency+bandwidth,1:bandwidth+latency", "1:wave+cut,1:cut+pause,1:pause+wave"],
)
def test_two_orders_of_the_same_handlers_are_refused(behavior: str) -> None:
    sentence = refused(behavior)
    for name in behavior[2:].split(",")[0].split("+"):
        assert name in sentence
    assert "same order" in sentence


def test_a_fraction_needs_a_protocol_that_tells_lengths() -> None:
    sentence = refused(
        "10:truncate", handlers={"truncate": specification("truncate", fraction=0.5)}
    )
    assert "truncate.fraction" in sentence


def test_handlers_that_meet_clients_are_no_behavior() -> None:
    for name in ("refuse", "down", "slow_accept", "unanswered", "dial_fail"):
        sentence = refused(f"10:{name}")
        assert repr(name) in sentence
        assert "--on-connect" in sentence


def on_connect(text: str) -> Any:
    """What meets clients."""
    return parse(text, "--on-connect")


def test_a_handler_of_exchanges_does_not_meet_clients() -> None:
    for name in ("latency", "error"):
        sentence = refused(on_connect=on_connect(f"10:{name}"))
        assert repr(name) in sentence
        assert "--behavior" in sentence


def test_one_handler_meets_a_client() -> None:
    assert "take one of them" in refused(on_connect=on_connect("10:refuse+slow_accept"))


@pytest.mark.parametrize("text", ["10:down", "99.9:down,0.1:refuse"])
def test_down_is_for_everybody(text: str) -> None:
    assert "100:down" in refused(on_connect=on_connect(text))


@pytest.mark.parametrize("options", [{"after": 1}, {"times": 1}, {"clients": "10.0.0.0/8"}])
def test_down_takes_times_only(options: Any) -> None:
    sentence = refused(
        on_connect=on_connect("100:down"), handlers={"down": specification("down", **options)}
    )
    assert f"down.{next(iter(options))}" in sentence


# One handler


class Own(FlowHandler):
    """Declares words that are Vaurien's too."""

    name = "own"
    options: Any = {
        "after": ("Its own", str, "noon"),
        "times": ("Its own", float, 0.5),
    }

    def on(self, event: Event, now: float) -> Any:
        yield 0, event


class Synonym(BaseHandler):
    """Has its own words for exact points."""

    name = "synonym"
    options: Any = {"warmup": ("Exchanges", int, 2), "agitate": ("Harms", int, 3)}
    points: ClassVar[Any] = {"after": "warmup", "times": "agitate"}

    def __call__(self, client_sock: Any, backend_sock: Any, to_backend: bool) -> None:
        """Do nothing."""


def raws(**options: Any) -> dict[str, Raw]:
    """Options as given on a command line."""
    return {name: Raw(value, f"--handlers.x.{name}") for name, value in options.items()}


def test_a_handler_without_points_may_harm_always() -> None:
    assert specify("latency", builtins()["latency"], {}).points is ALWAYS


@pytest.mark.parametrize("name", ["latency", "error", "transient", "hang", "abort", "cut"])
def test_every_handler_takes_the_exact_points(name: str) -> None:
    cls = builtins()[name]
    given = raws(
        after="3",
        every="2",
        since="1.5",
        until="9",
        scope="proxy",
        clients="10.0.0.0/8,!10.1.0.0/16",
        times="4",
    )
    made = specify(name, cls, given)
    assert made.points == Points(
        3, 4, 2, 1.5, 9.0, per_proxy=True, clients=Networks("10.0.0.0/8,!10.1.0.0/16")
    )


def test_the_exact_points_are_not_among_the_classs_own_options() -> None:
    made = specify("latency", builtins()["latency"], raws(after="3", latency="5"))
    assert "after" not in made.options
    assert made.given == {"after": 3}
    assert made.options["latency"] == 5
    assert made.in_force["after"] == 3


def test_an_option_of_the_class_beats_one_of_the_same_name() -> None:
    made = specify("own", Own, raws(after="dusk", times="0.25", every="3"))
    assert made.options == {"after": "dusk", "times": 0.25}
    assert made.points == Points(every=3)
    assert not {"after", "times"} & set(framework(Own))


def test_an_option_of_the_class_has_its_own_default() -> None:
    made = specify("own", Own, {})
    assert made.options == {"after": "noon", "times": 0.5}
    assert made.points is ALWAYS


def test_warmup_and_agitate_are_words_for_after_and_times() -> None:
    assert specify("synonym", Synonym, {}).points == Points(after=2, times=3)
    assert specify("synonym", Synonym, raws(warmup=5)).points == Points(after=5, times=3)
    assert specify("synonym", Synonym, raws(after=5)).points == Points(after=5, times=3)
    error, transient = builtins()["error"], builtins()["transient"]
    assert specify("error", error, raws(warmup="5")).points == Points(after=5)
    assert specify("error", error, raws(after="5")).points == Points(after=5)
    assert specify("transient", transient, raws(agitate="2")).points == Points(times=2)
    assert specify("transient", transient, raws(times="2")).points == Points(times=2)


@pytest.mark.parametrize(
    "both", [{"warmup": 1, "after": 1}, {"agitate": 1, "times": 1}, {"after": 1, "warmup": 2}]
)
def test_two_words_for_one_thing_are_refused_together(both: dict[str, int]) -> None:
    with pytest.raises(UsageError) as caught:
        specify("synonym", Synonym, raws(**both))
    for word in both:
        assert word in str(caught.value)
    assert "give one of them" in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("after", "-1", "less than 0"),
        ("after", "1.5", "not a whole number"),
        ("times", "-1", "less than 0"),
        ("every", "0", "less than 1"),
        ("since", "-0.5", "less than 0"),
        ("until", "nan", "not a finite number"),
        ("scope", "proxies", "did you mean 'proxy'?"),
        ("clients", "10.0.0.0/33", "10.0.0.0/33"),
        ("clients", "localhost", "localhost"),
        ("clients", "", "no network"),
        ("stream", "up", "upstream"),
    ],
)
def test_a_wrong_point_is_refused_by_its_name_and_value(option: str, value: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        specify("latency", builtins()["latency"], raws(**{option: value}))
    sentence = str(caught.value)
    assert sentence.startswith(f"--handlers.x.{option}: ")
    assert repr(value) in sentence
    assert said in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(("since", "until"), [("0", "0"), ("5", "5"), ("5", "4.9")])
def test_a_time_of_harm_that_never_comes_is_refused(since: str, until: str) -> None:
    with pytest.raises(UsageError, match=rf"^--handlers.x.until: {until}.*since"):
        specify("latency", builtins()["latency"], raws(since=since, until=until))
    assert specify("latency", builtins()["latency"], raws(since="5", until="5.1")).points


def test_an_option_that_does_not_exist_is_refused_with_the_nearest_one() -> None:
    for wrong, right in (("latencey", "latency"), ("everey", "every"), ("streem", "stream")):
        with pytest.raises(UsageError, match=f"did you mean '{right}'"):
            specify("latency", builtins()["latency"], raws(**{wrong: "1"}))


def test_a_socket_handler_has_no_stream() -> None:
    with pytest.raises(UsageError, match="stream"):
        specify("error", builtins()["error"], raws(stream="both"))


@pytest.mark.parametrize(
    ("stream", "acts"),
    [
        (None, (True, False)),
        ("downstream", (True, False)),
        ("upstream", (False, True)),
        ("both", (True, True)),
    ],
)
@pytest.mark.parametrize("name", ["latency", "reset_peer"])  # reset_peer declares it itself
def test_a_flow_handler_acts_on_its_stream(
    name: str, stream: str | None, acts: tuple[bool, bool]
) -> None:
    made = specification(name, **({} if stream is None else {"stream": stream}))
    assert (made.acts(False), made.acts(True)) == acts


def test_a_specification_from_a_plain_mapping_is_checked_too() -> None:
    with pytest.raises(UsageError, match=r"'latency' of 'latency'.*-1"):
        specification("latency", latency=-1)
    assert specification("latency", latency="5").options == {
        "latency": 5,
        "jitter": 0,
        "distribution": "uniform",
        "correlation": 0,
    }


# Toxics


def test_a_toxic_is_a_flow_handler_of_a_name() -> None:
    toxic = Toxic(specification("latency", latency=5))
    assert toxic.name == "latency"
    assert toxic.toxicity == 1


@pytest.mark.parametrize("name", ["error", "transient", "refuse"])
def test_a_toxic_that_is_no_flow_handler_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"'{name}'.*not a flow handler"):
        Toxic(specification(name))


@pytest.mark.parametrize("toxicity", [-0.1, 1.1, nan])
def test_a_toxicity_out_of_range_is_refused(toxicity: float) -> None:
    with pytest.raises(UsageError, match=f"'latency'.*{toxicity}"):
        Toxic(specification("latency"), toxicity)


@pytest.mark.parametrize("toxicity", [0, 0.5, 1])
def test_a_toxicity_is_from_0_to_1(toxicity: float) -> None:
    assert Toxic(specification("latency"), toxicity).toxicity == toxicity


def test_two_toxics_of_one_name_are_refused() -> None:
    one, same, other = (
        Toxic(Specification(name, builtins()["latency"])) for name in ("slow", "slow", "slower")
    )
    assert plan(toxics=(one, other)).toxics == (one, other)
    assert "'slow'" in refused(toxics=(one, other, same))


def test_a_toxic_is_not_given_what_nothing_would_heed() -> None:
    # Law 12: nothing is ignored silently. A toxic acts on all exchanges of the connections that it
    # hits, and tcp tells no lengths.
    with pytest.raises(UsageError, match="fraction"):
        Toxic(specification("truncate", fraction=0.5))
    for options in ({"after": 1}, {"times": 2}, {"every": 3}, {"clients": "10.0.0.0/8"}):
        with pytest.raises(UsageError, match=next(iter(options))):
            Toxic(specification("latency", **options))


# What is the same


class Thing:
    """A value that says nothing of what it is equal to."""

    def __init__(self, text: str) -> None:
        self.text = text


class Picky(Thing):
    """One that cannot be compared, as an array cannot."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")

    __hash__ = None  # type: ignore[assignment]


class Things(BaseHandler):
    """A handler with options of such types."""

    name = "things"
    options: Any = {
        "thing": ("One", Thing, "x"),
        "things": ("Several", lambda text: [Thing(word) for word in text.split()], "x y"),
        "picky": ("Another", Picky, "x"),
        "number": ("A number", float, 1),
    }


@pytest.mark.parametrize("options", [{}, {"thing": "a"}, {"things": "a b"}, {"picky": "a"}])
def test_options_that_cannot_be_compared_are_what_was_written(options: dict[str, str]) -> None:
    made = Specification("things", Things, options)
    assert made == Specification("things", Things, options)
    for word in ("thing", "things", "picky"):
        assert made != Specification("things", Things, {**options, word: "other"})


def test_options_that_can_be_compared_are_what_they_became() -> None:
    assert Specification("things", Things, {"number": "1.0"}) == Specification(
        "things", Things, {"number": 1}
    )
    assert Specification("things", Things, {"number": "2"}) != Specification(
        "things", Things, {"number": "1"}
    )


def test_an_option_that_changes_leaves_what_was_written_of_the_others() -> None:
    before = Specification("things", Things, {"thing": "a"})
    changed = {"number": Raw("2", "here")}
    assert before.with_options(changed) == before.with_options(changed)
    assert before.with_options(changed) != Specification("things", Things).with_options(changed)


@pytest.mark.parametrize(
    ("before", "after", "stay"),
    [
        ("abcd", "bcda", "bcd"),
        ("abcd", "dabc", "abc"),
        ("abc", "axbc", "abc"),
        ("abc", "cb", "b"),
        ("abcde", "edcba", "e"),
        ("", "a", ""),
    ],
)
def test_as_many_stay_as_keep_their_order(before: str, after: str, stay: str) -> None:
    found = staying(before, after)
    assert len(found) == len(stay)
    kept = [name for name in after if name in found]
    assert kept == sorted(kept, key=before.index)


class Blind:
    """Made of text, and equal to itself only."""

    def __init__(self, text: str) -> None:
        self.text = text


@pytest.mark.parametrize(
    ("kind", "texts", "same"),
    [
        (str, ("a", "b"), False),
        (Blind, ("a", "a"), True),
        (Blind, ("a", "b"), False),
        (lambda text: [Blind(text)], ("a", "a"), True),
        (lambda text: {"x": (Blind(text), 1)}, ("a", "b"), False),
    ],
)
def test_specifications_are_equal_if_what_they_say_is(
    kind: Any, texts: tuple[str, str], same: bool
) -> None:
    class Own(BaseHandler):
        """Takes a value."""

        name = "own"
        options: Any = {"value": ("Any", kind, "x")}

    one, other = (specify("own", Own, {"value": Raw(text, "")}) for text in texts)
    assert (one == other) is same


def test_what_a_type_reads_elsewhere_is_looked_at_again() -> None:
    pages = itertools.count()

    class Own(BaseHandler):
        """Takes a value."""

        name = "own"
        options: Any = {"page": ("Any", lambda _: f"page {next(pages)}", "x")}

    one, other = (specify("own", Own, {}) for _ in range(2))
    assert one != other
