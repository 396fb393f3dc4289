"""The weighted choice, the draws behind it, exact points: pure functions, no socket anywhere."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from fractions import Fraction
from hashlib import blake2s

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaurien.address import Networks
from vaurien.behavior import ALWAYS, Behavior, Dice, Exchange, Points, cuts, parse
from vaurien.errors import UsageError

SPACE = 2**64


def parts(text: str) -> list[tuple[Fraction, str]]:
    """The parts of a behavior."""
    return list(parse(text, "--behavior").parts)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20:delay", [(20, "delay")]),
        ("20:delay,5:error", [(20, "delay"), (5, "error")]),
        ("  20 : delay ,  5:error ", [(20, "delay"), (5, "error")]),
        ("0.5:error", [(Fraction(1, 2), "error")]),
        (".5:error", [(Fraction(1, 2), "error")]),
        ("33.333:a,66.667:b", [(Fraction(33333, 1000), "a"), (Fraction(66667, 1000), "b")]),
        ("0:error", [(0, "error")]),
        ("100:dummy", [(100, "dummy")]),
        ("100:delay,0:error", [(100, "delay"), (0, "error")]),
        ("20:path.to.the.Class", [(20, "path.to.the.Class")]),
        ("20:delay,30:delay", [(20, "delay"), (30, "delay")]),
        ("10:latency+bandwidth", [(10, "latency+bandwidth")]),
        ("10: latency + bandwidth ,5:a+b+c", [(10, "latency+bandwidth"), (5, "a+b+c")]),
        ("10:path.to.Class+latency", [(10, "path.to.Class+latency")]),
    ],
)
def test_a_behavior_is_read(text: str, expected: list[tuple[object, str]]) -> None:
    assert parts(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ",",
        "delay",
        "20",
        "20:",
        ":delay",
        "20:delay,",
        ",20:delay",
        "20;delay",
        "-1:delay",
        "+1:delay",
        "1e1:delay",
        "0x10:delay",
        "nan:delay",
        "inf:delay",
        "1/2:delay",
        "20%:delay",
        "2_0:delay",
        "٢٠:delay",
        "20:de lay",
        "20:delay 5:error",
        "101:delay",
        "100.0000001:delay",
        "60:delay,41:error",
        "99.9:delay,0.2:error",
        "." + ":delay",
        "1" * 5000 + ":delay",
        "10:latency+",
        "10:+latency",
        "10:latency++bandwidth",
        "10:+",
        "10:latency+latency",
        "10:latency+bandwidth+latency",
        "10:latency+dummy",
        "10:dummy+latency",
        "10:lat ency+bandwidth",
        "10+5:latency",
    ],
)
def test_a_wrong_behavior_is_refused_by_the_name_of_its_setting(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--behavior: "):
        parts(text)


def test_weights_that_make_a_hundred_only_exactly_are_allowed() -> None:
    # As floats, 0.1 ten times is less than 1, and 33.3 and so on is more.
    assert len(parts(",".join(f"10:h{n}" for n in range(10)))) == 10
    assert len(parts(",".join(f"0.1:h{n}" for n in range(1000)))) == 1000
    assert cuts(parse("99.9:a,0.1:b", ""))[-1] == cuts(parse("99.9:a", ""))[-1]


def test_a_behavior_knows_its_names_once_and_in_order() -> None:
    assert parse("20:b,5:a,3:b", "").names == ["b", "a"]
    assert parse("20:b+c,5:a+c,3:b", "").names == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10:latency+", ["'latency+'", "without a handler"]),
        ("10:cut+latency+cut", ["'cut+latency+cut'", "'cut' twice"]),
        ("10:latency+dummy", ["'latency+dummy'", "dummy does nothing"]),
        ("10:latency  # slow", ["'latency  # slow'", "comment", "a line of its own"]),
    ],
)
def test_a_wrong_combination_is_named_with_the_way_out(text: str, said: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        parts(text)
    assert "\n" not in str(caught.value)
    for words in said:
        assert words in str(caught.value)


@pytest.mark.parametrize("text", ["20:delay,5:error", "0.5:error", "100:dummy", "0:a", "5:a+b,1:c"])
def test_a_behavior_is_written_as_it_was_read(text: str) -> None:
    assert str(parse(text, "")) == text


weights = st.lists(st.integers(0, 10**6), min_size=1, max_size=8).map(
    lambda many: [Fraction(n, 10**4) for n in many] if sum(many) <= 10**6 else [Fraction(1)]
)


@given(weights, st.integers(0, SPACE - 1))
def test_a_draw_falls_into_the_part_whose_share_of_the_space_it_is_in(
    shares: list[Fraction], draw: int
) -> None:
    # Said with fractions and no bisection: below the sum of the first i weights is a part up to i.
    behavior = Behavior(tuple((share, f"h{n}") for n, share in enumerate(shares)))
    expected = len(shares)
    total = Fraction(0)
    for index, share in enumerate(shares):
        total += share
        if draw < int(total * SPACE / 100):
            expected = index
            break
    assert Drawn(draw).part(cuts(behavior), 1, 1) == expected


class Drawn(Dice):
    """Dice that are cogged."""

    def __init__(self, number: int) -> None:
        super().__init__(0, "cogged")
        self.number = number

    def bits(self, *_: object) -> bytes:
        """What they are to fall on."""
        return self.number.to_bytes(8, "big")


@pytest.mark.parametrize(
    ("text", "draw", "part"),
    [
        ("50:a", 0, 0),
        ("50:a", SPACE // 2 - 1, 0),
        ("50:a", SPACE // 2, 1),
        ("50:a", SPACE - 1, 1),
        ("100:a", 0, 0),
        ("100:a", SPACE - 1, 0),
        ("50:a,50:b", SPACE // 2 - 1, 0),
        ("50:a,50:b", SPACE // 2, 1),
        ("50:a,50:b", SPACE - 1, 1),
        ("0:a", 0, 1),
        ("0:a,50:b", 0, 1),
        ("0:a,100:b", SPACE - 1, 1),
        ("100:a,0:b", SPACE - 1, 0),
        ("25:a,0:b,25:c", SPACE // 4, 2),
        ("0.0001:a", SPACE // 1_000_000 - 1, 0),
        ("0.0001:a", SPACE // 1_000_000, 1),
    ],
)
def test_the_boundaries_are_exact(text: str, draw: int, part: int) -> None:
    assert Drawn(draw).part(cuts(parse(text, "")), 1, 1) == part


@pytest.mark.parametrize(
    ("seed", "name", "where", "bits"),
    [
        (1, "default", (1, 1, b"pick"), "5c896fd293825e05"),
        (1, "default", (1, 2, b"pick"), "0275bcd638bc4573"),
        (1, "default", (2, 1, b"pick"), "b0337e7bc0e0a2dc"),
        (1, "default", (1, 1, b"toxic"), "a83758269501046f"),
        (1, "default", (SPACE - 1, SPACE - 1, b"pick"), "906562d9e8061ed8"),
        (1, "other", (1, 1, b"pick"), "abc3d6c2dc970a2c"),
        (0, "default", (1, 1, b"pick"), "78e5c90b7c47398d"),
        (-1, "default", (1, 1, b"pick"), "28e94bc394b0d946"),
        (2**64, "default", (1, 1, b"pick"), "83e2054251c3da48"),
    ],
)
def test_the_draws_of_a_seed_stay_what_they_are(
    seed: int, name: str, where: tuple[int, int, bytes], bits: str
) -> None:
    # Who has a seed that shows a fault has it in the next release as well.
    assert Dice(seed, name).bits(*where).hex() == bits


def test_a_draw_is_a_keyed_hash_of_all_that_it_may_depend_on() -> None:
    key = blake2s(b"7\0name", digest_size=32).digest()
    message = struct.pack(">QQ", 3, 4) + b"purpose"
    expected = blake2s(message, digest_size=8, key=key).digest()
    assert Dice(7, "name").bits(3, 4, b"purpose") == expected


def test_draws_do_not_depend_on_what_was_drawn_before() -> None:
    dice = Dice(1, "default")
    forwards = [dice.bits(c, e, b"pick") for c in range(20) for e in range(20)]
    dice.stream(3, 4, "other").random()
    backwards = [dice.bits(c, e, b"pick") for c in range(19, -1, -1) for e in range(19, -1, -1)]
    assert forwards == backwards[::-1]
    assert len(set(forwards)) == 400


@given(st.integers(), st.integers(0, SPACE - 1), st.integers(0, SPACE - 1), st.text())
def test_a_drawn_number_is_from_0_to_1(
    seed: int, connection: int, exchange: int, purpose: str
) -> None:
    assert 0 <= Dice(seed, "default").draw(connection, exchange, purpose) < 1


def test_the_shares_are_those_asked_for() -> None:
    n = 100_000
    behavior = parse("20:a,5:b,0.5:c,50:d", "")
    edges, dice = cuts(behavior), Dice(1, "default")
    counts = [0] * 5
    for number in range(n):
        counts[dice.part(edges, number // 50 + 1, number % 50 + 1)] += 1
    for count, share in zip(counts, (0.2, 0.05, 0.005, 0.5, 0.245), strict=True):
        assert abs(count - n * share) < 4 * math.sqrt(n * share * (1 - share))


def test_the_shares_of_one_connection_and_of_one_exchange_are_those_asked_for() -> None:
    n, edges = 20_000, cuts(parse("20:a", ""))
    dice = Dice(2, "default")
    bound = 4 * math.sqrt(n * 0.2 * 0.8)
    of_connection = sum(dice.part(edges, 1, number) == 0 for number in range(n))
    of_exchange = sum(dice.part(edges, number, 1) == 0 for number in range(n))
    assert abs(of_connection - n * 0.2) < bound
    assert abs(of_exchange - n * 0.2) < bound


def test_neighbours_are_independent() -> None:
    # Picked on one exchange says nothing about the next, nor about the next connection.
    n, edges = 20_000, cuts(parse("50:a", ""))
    dice = Dice(3, "default")
    bound = 4 * math.sqrt(n * 0.5 * 0.5)
    others: tuple[Callable[[int, int], tuple[int, int]], ...] = (
        lambda c, e: (c + 1, e),
        lambda c, e: (c, e + 1),
        lambda c, e: (e, c + 1),
    )
    for other in others:
        equal = sum(
            dice.part(edges, c, e) == dice.part(edges, *other(c, e))
            for c in range(200)
            for e in range(n // 200)
        )
        assert abs(equal - n / 2) < bound


def test_an_exchange_draws_the_same_for_one_purpose_each_time() -> None:
    exchange = Exchange(Dice(1, "default"), 3, 4)
    assert exchange.draw("a") == exchange.draw("a") == Dice(1, "default").draw(3, 4, "a")
    assert exchange.draw("a") != exchange.draw("b")
    assert exchange.draw("a") != Exchange(Dice(1, "default"), 3, 5).draw("a")
    assert exchange.draw("a") != Exchange(Dice(1, "default"), 4, 4).draw("a")
    assert exchange.draw("a") != Exchange(Dice(1, "other"), 3, 4).draw("a")


def test_a_stream_of_an_exchange_goes_on_where_it_ended() -> None:
    first = Exchange(Dice(1, "default"), 3, 4)
    again = Exchange(Dice(1, "default"), 3, 4)
    numbers = [first.stream("a").random(), first.stream("b").random(), first.stream("a").random()]
    stream = again.stream("a")
    assert [stream.random(), stream.random()] == [numbers[0], numbers[2]]
    assert again.stream("b").random() == numbers[1]
    assert len(set(numbers)) == 3


@given(st.lists(st.integers(0, 5000), max_size=10))
def test_the_noise_of_an_exchange_does_not_depend_on_the_pieces(sizes: list[int]) -> None:
    pieces = Exchange(Dice(1, "default"), 3, 4)
    whole = Exchange(Dice(1, "default"), 3, 4).noise(sum(sizes))
    assert b"".join(pieces.noise(size) for size in sizes) == whole
    assert len(whole) == sum(sizes)


def allowed(points: Points, exchanges: int) -> str:
    """Which of so many exchanges of one scope, all picked, are harmed."""
    harms, result = 0, ""
    for exchange in range(1, exchanges + 1):
        harmed = points.allow(exchange, harms)
        harms += harmed
        result += ".E"[harmed]
    return result


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        (ALWAYS, "EEEEE"),
        (Points(after=2), "..EEE"),
        (Points(times=2), "EE..."),
        (Points(after=1, times=3), ".EEE."),
        (Points(times=0), "....."),
        (Points(after=9), "....."),
        (Points(every=1), "EEEEE"),
        (Points(every=2), ".E.E."),
        (Points(every=3), "..E.."),
        (Points(every=6), "....."),
        (Points(after=1, every=2), "..E.E"),
        (Points(after=2, every=3), "....E"),
        (Points(every=2, times=1), ".E..."),
        (Points(after=1, every=2, times=1), "..E.."),
    ],
)
def test_points_say_which_exchanges_are_harmed(points: Points, expected: str) -> None:
    assert allowed(points, 5) == expected


@given(st.integers(0, 6), st.one_of(st.none(), st.integers(0, 6)), st.integers(1, 5))
def test_points_count_exchanges_and_harms_as_said(
    after: int, times: int | None, every: int
) -> None:
    # Said with lists: those after the first `after`, each Nth of them, the first `times` of these.
    harmed = list(range(1, 31))[after:][every - 1 :: every][:times]
    expected = "".join("E" if number in harmed else "." for number in range(1, 31))
    assert allowed(Points(after=after, times=times, every=every), 30) == expected


@pytest.mark.parametrize(
    ("points", "seconds", "expected"),
    [
        (Points(since=10), 9.999, False),
        (Points(since=10), 10, True),
        (Points(until=20), 19.999, True),
        (Points(until=20), 20, False),
        (Points(since=10, until=20), 0, False),
        (Points(since=10, until=20), 15, True),
        (Points(since=10, until=20), 25, False),
        (Points(until=0), 0, False),
        (ALWAYS, 1e9, True),
    ],
)
def test_since_and_until_bound_the_time_of_harm(
    points: Points, seconds: float, expected: bool
) -> None:
    assert points.allow(1, 0, seconds) is expected


@pytest.mark.parametrize(
    ("networks", "client", "expected"),
    [
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/8,192.168.1.7", "192.168.1.7", True),
        ("10.0.0.0/8,192.168.1.7", "192.168.1.8", False),
        ("10.0.0.0/8,!10.1.0.0/16", "10.1.2.3", False),
        ("10.0.0.0/8,!10.1.0.0/16", "10.2.2.3", True),
        ("!10.0.0.0/8", "10.1.2.3", False),
        ("!10.0.0.0/8", "127.0.0.1", True),
        ("!10.0.0.0/8, ! 127.0.0.1", "127.0.0.1", False),
        ("::1", "::1", True),
        ("2001:db8::/32", "2001:db8:5::1", True),
        ("2001:db8::/32", "10.0.0.1", False),
        ("fe80::/10", "fe80::1%eth0", True),
        ("10.0.0.0/8", "::ffff:10.1.2.3", True),  # an IPv4 client of a listener of both
        ("!10.0.0.0/8", "::ffff:10.1.2.3", False),
        ("0.0.0.0/0", "10.1.2.3", True),
        ("0.0.0.0/0", "2001:db8::1", False),
    ],
)
def test_clients_says_whose_exchanges_are_harmed(
    networks: str, client: str, expected: bool
) -> None:
    address = (client, 4711, 0, 0) if ":" in client else (client, 4711)
    assert Points(clients=Networks(networks)).allow(1, 0, 0, address) is expected


@pytest.mark.parametrize(("networks", "expected"), [("10.0.0.0/8", False), ("!10.0.0.0/8", True)])
def test_a_client_of_a_unix_socket_is_in_no_network(networks: str, expected: bool) -> None:
    assert Points(clients=Networks(networks)).allow(1, 0, 0, "") is expected


def test_all_points_have_to_allow_it() -> None:
    points = Points(after=1, times=1, since=5, clients=Networks("10.0.0.0/8"))
    inside, outside = ("10.0.0.1", 1), ("11.0.0.1", 1)
    assert points.allow(2, 0, 5, inside)
    assert not points.allow(1, 0, 5, inside)
    assert not points.allow(2, 1, 5, inside)
    assert not points.allow(2, 0, 4, inside)
    assert not points.allow(2, 0, 5, outside)
