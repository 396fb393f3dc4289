"""Replies: whatever fills the slots, what leaves is in the order of requests, each exactly once."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from vaurien.exchange.replies import Replies


class Pipeline(RuleBasedStateMachine):
    """Against a model: a list of what each exchange is to leave, and what has left."""

    def __init__(self) -> None:
        super().__init__()
        self.replies = Replies()
        self.fillings: dict[int, tuple[str, bytes]] = {}
        self.left: list[tuple[int, bytes]] = []  # what has left, by exchange
        self.backend: list[int] = []  # whom the backend is to answer
        self.sent: dict[int, bytes] = {}
        self.done = 0
        self.count = 0

    @rule(filling=st.sampled_from(["backend", "made", "replaced", "lost"]))
    def request(self, filling: str) -> None:
        self.count += 1
        reply = b"<%d>" % self.count if filling in ("made", "replaced") else b""
        self.fillings[self.count] = (filling, reply)
        self.replies.open(self.count, filling, reply)  # type: ignore[arg-type]
        if filling != "made":
            self.backend.append(self.count)

    @precondition(lambda self: self.backend and self.backend[0] not in self.sent)
    @rule(data=st.data())
    def fill_anew(self, data: st.DataObject) -> None:
        """As long as it has not begun to be answered, a slot may be filled in another way."""
        which = data.draw(st.sampled_from([n for n in self.backend if n not in self.sent]))
        filling = data.draw(st.sampled_from(["backend", "replaced", "lost"]))
        reply = b"<<%d>>" % which if filling == "replaced" else b""
        self.fillings[which] = (filling, reply)
        self.replies.fill(which, filling, reply)  # type: ignore[arg-type]

    @precondition(lambda self: self.backend)
    @rule(last=st.booleans(), size=st.integers(1, 3))
    def answer(self, last: bool, size: int) -> None:
        exchange = self.backend[0]
        data = b"x" * size
        if self.replies.whose != exchange:
            with pytest.raises(ValueError, match="whose turn it is not"):
                self.replies.piece(exchange, data, last)
            return
        filling, reply = self.fillings[exchange]
        self.sent[exchange] = self.sent.get(exchange, b"") + data
        wanted = {"backend": data, "replaced": reply if last else b"", "lost": b""}[filling]
        assert self.replies.piece(exchange, data, last) == wanted
        if last:
            self.backend.pop(0)
            self._over(exchange)

    @rule()
    def turn(self) -> None:
        while (reply := self.replies.turn()) is not None:
            exchange = self.done + 1
            assert self.fillings[exchange] == ("made", reply)
            self._over(exchange)

    @rule()
    def turn_but_not_of_the_first(self) -> None:
        assert self.replies.turn(self.replies.whose or -1) is None

    def _over(self, exchange: int) -> None:
        assert exchange == self.done + 1, "not in the order of requests"
        self.done = exchange

    @invariant()
    def counts(self) -> None:
        open_ones = range(self.done + 1, self.count + 1)
        assert len(self.replies) == len(open_ones)
        assert self.replies.whose == (self.done + 1 if open_ones else 0)
        assert self.replies.made == sum(len(self.fillings[n][1]) for n in open_ones)
        assert self.replies.altered == sum(self.fillings[n][0] != "backend" for n in open_ones)


Pipeline.TestCase.settings = settings(max_examples=100, stateful_step_count=30)
TestPipeline = Pipeline.TestCase


def test_a_slot_that_is_done_is_filled_no_more() -> None:
    replies = Replies()
    replies.open(1, "made", b"x")
    assert replies.turn() == b"x"
    with pytest.raises(LookupError, match="1 has been answered"):
        replies.fill(1, "lost")


def test_the_backend_does_not_answer_what_it_never_saw() -> None:
    replies = Replies()
    replies.open(1, "made", b"x")
    with pytest.raises(ValueError, match="whose turn it is not"):
        replies.piece(1, b"y", True)
