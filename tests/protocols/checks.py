"""The law of framers, for any of them: what goes in comes out, in whatever pieces it comes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from vaurien.protocols.cutter import KEPT
from vaurien.protocols.framer import Framer, FramingError, Piece

Talk = Sequence[tuple[bool, bytes]]  # what each side says, in order: (to_backend, data)


def check_framer(make: Callable[[], Framer], talk: Talk, bounded: int = KEPT) -> list[Piece]:
    """Feed `talk` whole, byte by byte and in random cuts; the messages, each as one piece.

    However it is cut, they are the same. AssertionError if they are not, if bytes are lost, made or
    changed, or if more than `bounded` bytes are kept.
    """
    whole = feed(make(), talk, bounded)
    cuts = [[(way, data[i : i + 1]) for way, data in talk for i in range(len(data))]]
    for seed in range(20):
        cuts.append(list(_cut(talk, random.Random(seed))))
    for cut in cuts:
        assert feed(make(), cut, bounded) == whole, f"otherwise when it comes as {cut}"
    return whole


def feed(framer: Framer, talk: Talk, bounded: int = KEPT) -> list[Piece]:
    """The messages in `talk`, incomplete ones too, up to what it cannot cut."""
    messages: list[Piece] = []
    #: The messages that are not complete, by direction; what is pushed may stand inside another.
    inside: dict[tuple[bool, bool], int] = {}
    came, out = {True: b"", False: b""}, {True: b"", False: b""}
    for to_backend, data in talk:
        came[to_backend] += data
        try:
            for piece in framer.feed(to_backend, data):
                assert piece.data, f"{piece} is empty"
                which = (to_backend, not piece.exchange)
                assert piece.first != (which in inside), f"{piece} after {messages}"
                out[to_backend] += piece.data
                _join(messages, inside, which, piece)
        except FramingError:
            break
        assert len(came[to_backend]) - len(out[to_backend]) <= bounded, "it keeps too much"
    for way, data in out.items():
        assert came[way].startswith(data), f"{data!r} did not come in"
    return messages


def _join(
    messages: list[Piece],
    inside: dict[tuple[bool, bool], int],
    which: tuple[bool, bool],
    piece: Piece,
) -> None:
    if piece.first:
        inside[which] = len(messages)
        messages.append(piece._replace(length=None))
    else:
        before = messages[inside[which]]
        assert before.exchange == piece.exchange
        messages[inside[which]] = before._replace(data=before.data + piece.data, last=piece.last)
    if piece.last:
        del inside[which]


def _cut(talk: Talk, dice: random.Random) -> Iterator[tuple[bool, bytes]]:
    for way, data in talk:
        start = 0
        while start < len(data):
            end = start + dice.choice([1, 1, 2, 3, 10, 100, 5000])
            yield way, data[start:end]
            start = end
