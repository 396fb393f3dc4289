"""A name that is not there is told with the nearest one, in a moment, whatever names there are."""

from __future__ import annotations

import random
from time import thread_time

import pytest

from tests.attacks.helpers import Bystander
from tests.control.served import Served
from tests.support import Backend
from vaurien.errors import nearest

LONG = 199  # characters; a name of 200 would have what is frequent in it passed over
MANY = 900
MOST = 0.1  # seconds of the processor; it took 1 to 5


def names(letters: str) -> list[str]:
    """Many long names of a few letters each."""
    draw = random.Random(letters)
    return ["".join(draw.choices(letters, k=LONG)) for _ in range(MANY)]


@pytest.mark.parametrize("letters", ["a", "ab", "abcd", "abcdefghijklmnopqrstuvwxyz-"])
@pytest.mark.parametrize("length", [10, 150, LONG, 255, 256, 1 << 20])
def test_the_nearest_is_found_in_a_moment(letters: str, length: int) -> None:
    known = names(letters)
    word = (known[5][::-1] * (length // LONG + 1))[:length]
    start = thread_time()
    nearest(word, known)
    assert thread_time() - start < MOST


def test_the_nearest_of_many_is_found_all_the_same() -> None:
    known = [*names("abcd"), *(f"redis-{n}" for n in range(2000)), "orders-eu-west"]
    assert nearest("orders-eu-wset", known) == "did you mean 'orders-eu-west'?"


def test_who_asks_for_what_is_not_there_holds_up_nobody(echo_backend: Backend) -> None:
    with Served("--distant", echo_backend.address) as vaurien:
        for name in names("ab")[:300]:
            vaurien.create(name, "127.0.0.1:1", enabled=False)
        with Bystander(vaurien.address, vaurien.pid) as others:
            for name in names("ba")[:10]:
                answer = vaurien.api.call("GET", f"/proxies/{name}")
                assert answer.status == 404
            others.unharmed()
            assert others.longest < 0.25
