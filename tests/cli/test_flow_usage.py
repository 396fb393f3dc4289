"""What a user gets wrong with flow handlers, points, presets, journal and replay: a sentence each.

All are refused before anything listens: `refused` wants nothing on standard output.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cli.helpers import accepted
from tests.cli.helpers import refused as refused_by_program
from vaurien.errors import UsageError
from vaurien.options import Raw
from vaurien.settings import resolve


def refused(*arguments: object) -> str:
    """The sentence with which the settings are refused (what the program makes of it is below)."""
    given = [str(argument) for argument in arguments]
    pairs = [(flag[2:], value) for flag, value in zip(given[::2], given[1::2], strict=True)]
    flags = {name: Raw(value, f"--{name}") for name, value in pairs if name[:9] != "handlers."}
    options = [(n[9:], Raw(value, f"--{n}")) for n, value in pairs if n[:9] == "handlers."]
    with pytest.raises(UsageError) as caught:
        resolve(flags, options, {})
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert caught.value.exit_code == 2
    return sentence


OUT_OF_RANGE = [
    # handler, option, a value that is wrong
    ("latency", "latency", "-1"),
    ("latency", "jitter", "-0.5"),
    ("latency", "correlation", "101"),
    ("latency", "latency", "nan"),
    ("latency", "latency", "inf"),
    ("latency", "latency", "1s"),
    ("latency", "stream", "sideways"),
    ("latency", "distribution", "gauss"),
    ("latency", "distribution", "/no/such/file"),
    ("latency", "distribution", "/dev/null"),
    ("bandwidth", "rate", "-0.0001"),
    ("bandwidth", "rate", "-1"),
    ("bandwidth", "shared", "perhaps"),
    ("slicer", "average_size", "-1"),
    ("slicer", "average_size", "1.5"),
    ("slicer", "size_variation", "-1"),
    ("slicer", "delay", "-1"),
    ("slow_close", "delay", "-1"),
    ("timeout", "timeout", "-1"),
    ("reset_peer", "timeout", "-1"),
    ("reset", "stream", "client"),
    ("limit_data", "bytes", "-1"),
    ("wave", "sine_period", "0"),
    ("wave", "saw_amplitude", "-1"),
    ("stall", "loss", "100.5"),
    ("stall", "loss", "-1"),
    ("stall", "model", "gilbert"),
    ("stall", "rto", "-200"),
    ("corrupt", "chance", "101"),
    ("corrupt", "offset", "-1"),
    ("truncate", "bytes", "-1"),
    ("truncate", "fraction", "1.5"),
    ("pause", "time", "-1"),
    ("cut", "time", "-1"),
    ("cut", "how", "rst"),
    ("cut", "side", "server"),
    ("trickle", "duration", "-1"),
    ("blackout", "how", "hard"),
    ("slow_accept", "delay", "-1"),
    # exact points, of all kinds of handlers
    ("latency", "after", "-1"),
    ("delay", "times", "-1"),
    ("error", "every", "0"),
    ("error", "every", "two"),
    ("transient", "since", "-1"),
    ("hang", "until", "soon"),
    ("hang", "scope", "exchange"),
    ("latency", "clients", "10.0.0.0/33"),
    ("latency", "clients", "somewhere"),
    ("latency", "clients", "10.0.0.0/8,,::1"),
    ("latency", "clients", "!"),
]


@pytest.mark.parametrize(("handler", "option", "value"), OUT_OF_RANGE)
def test_a_value_that_an_option_cannot_have_is_refused(
    handler: str, option: str, value: str
) -> None:
    setting = "--on-connect" if handler == "slow_accept" else "--behavior"
    text = refused(setting, f"100:{handler}", f"--handlers.{handler}.{option}", value)
    assert text.startswith(f"--handlers.{handler}.{option}: {value!r}")


@pytest.mark.parametrize(
    ("handler", "option", "nearest"),
    [
        ("latency", "latancy", "'latency'"),
        ("latency", "jiter", "'jitter'"),
        ("bandwidth", "rat", "'rate'"),
        ("delay", "tims", "'times'"),
        ("error", "warm-up", "'warmup'"),
        ("cut", "sid", "'side'"),
        ("hang", "client", "'clients'"),
    ],
)
def test_an_option_misspelt_is_refused_with_the_nearest(
    handler: str, option: str, nearest: str
) -> None:
    text = refused("--behavior", f"100:{handler}", f"--handlers.{handler}.{option}", "1")
    assert text.startswith(f"--handlers.{handler}.{option}: ")
    assert f"did you mean {nearest}?" in text


COMBINATIONS = [
    ("100:latncy", "'latency'"),
    ("100:resetpeer", "'reset_peer'"),
    ("100:3gg", "'3g'"),
    ("100:3g-slo", "'3g-slow'"),
    ("100:satelite", "'satellite'"),
    ("100:latency+bandwith", "'bandwidth'"),
    ("100:latency+error+transient", "'error' and 'transient' exclude each other"),
    ("100:error+latency", "write it last"),
    ("100:3g+error+latency", "write it last"),
    ("100:latency+latency", "'latency' twice"),
    ("100:latency+", "+ without a handler"),
    ("100:+latency", "+ without a handler"),
    ("100:latency++error", "+ without a handler"),
    ("100:latency+dummy", "dummy does nothing"),
    ("100:latency error", "separate behaviors by commas"),
    ("50:latency+bandwidth,50:bandwidth+latency", "different orders"),
    ("60:latency,60:bandwidth", "add up to 120"),
    ("100:refuse", "--on-connect"),
    ("50:latency+refuse", "--on-connect"),
    ("100:down", "--on-connect"),
]


@pytest.mark.parametrize(("behavior", "words"), COMBINATIONS)
def test_a_behavior_that_cannot_be_is_refused(behavior: str, words: str) -> None:
    text = refused("--behavior", behavior)
    assert text.startswith("--behavior: ")
    assert words in text


ON_CONNECT = [
    ("100:latency", "--behavior"),
    ("100:delay", "--behavior"),
    ("100:3g", "--behavior"),
    ("50:down", "write 100:down"),
    ("50:down,50:refuse", "write 100:down"),
    ("100:downn", "'down'"),
    ("100:slow-accept", "'slow_accept'"),
    ("100:refuse+slow_accept", "take one of them"),
    ("60:refuse,60:unanswered", "add up to 120"),
    ("refuse", "20:refuse"),
    ("", "20:delay"),
]


@pytest.mark.parametrize(("on_connect", "words"), ON_CONNECT)
def test_who_cannot_meet_a_client_is_refused(on_connect: str, words: str) -> None:
    text = refused("--on-connect", on_connect)
    assert text.startswith("--on-connect: ")
    assert words in text


@pytest.mark.parametrize("point", ["after", "times", "every", "clients"])
def test_down_is_down_for_everybody(point: str) -> None:
    value = "10.0.0.0/8" if point == "clients" else "1"
    text = refused("--on-connect", "100:down", f"--handlers.down.{point}", value)
    assert "down" in text and point in text


def test_one_thing_said_in_two_words_is_refused() -> None:
    text = refused(
        *("--behavior", "100:error"),
        *("--handlers.error.warmup", 2, "--handlers.error.after", 3),
    )
    assert "'warmup'" in text and "--handlers.error.after" in text
    text = refused(
        *("--behavior", "100:transient"),
        *("--handlers.transient.times", 2, "--handlers.transient.agitate", 3),
    )
    assert "'agitate'" in text and "--handlers.transient.times" in text


def test_a_time_that_ends_before_it_begins_is_refused() -> None:
    for until in (3, 5):
        text = refused(
            *("--behavior", "100:latency"),
            *("--handlers.latency.since", 5, "--handlers.latency.until", until),
        )
        assert "since" in text and "until" in text


def test_a_share_of_a_message_needs_a_protocol_that_tells_its_length() -> None:
    text = refused("--behavior", "100:truncate", "--handlers.truncate.fraction", 0.5)
    assert "truncate.fraction" in text and "protocol" in text


def test_a_preset_takes_no_options() -> None:
    text = refused("--behavior", "100:3g", "--handlers.3g.down", 5)
    assert "preset" in text and "[preset:NAME]" in text


@pytest.mark.parametrize("value", ["0", "-1", "1M", "1.5", ""])
def test_max_held_is_a_number_of_bytes(value: str) -> None:
    assert refused("--max-held", value).startswith(f"--max-held: {value!r}")


def test_journal_all_needs_a_journal() -> None:
    assert "--journal FILE" in refused("--journal-all", "yes")


PRESETS = [
    ("[preset:mine]\nrtt = 10\ndwn = 5\n", "'down'"),
    ("[preset:mine]\nrtt = -10\n", "less than 0"),
    ("[preset:mine]\nloss = 200\n", "more than 100"),
    ("[preset:mine]\nrtt = 10\nlatency = 5\n", "in several words"),
    ("[preset:mine]\nsource = nobody\n", "does nothing"),
    ("[preset:]\nrtt = 10\n", "no such section"),
    ("[preset:latency]\nrtt = 10\n", "is a handler"),
    ("[pre-set:mine]\nrtt = 10\n", "preset:NAME"),
]


@pytest.mark.parametrize(("text", "words"), PRESETS)
def test_a_preset_that_cannot_be_is_refused_with_its_place(
    text: str, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.ini"
    file.write_text(text)
    sentence = refused("--config", file)
    assert sentence.startswith(str(file))
    assert words in sentence


LINE = {
    "v": 1,
    "seed": 7,
    "time": "2026-11-22T10:00:00.000000+00:00",
    "proxy": "default",
    "connection": 1,
    "client": "127.0.0.1:1",
    "exchange": 1,
    "handler": "latency",
    "options": {"latency": {"latency": 20}},
    "fired": ["latency"],
    "from_client": 1,
    "from_backend": 1,
    "seconds": 0.1,
    "end": "next",
}


def lines(*changes: dict[str, object]) -> str:
    """A journal whose lines are `LINE` with changes."""
    return "".join(json.dumps({**LINE, **change}) + "\n" for change in changes)


JOURNALS = {
    "no json": ("hello\n" + lines({}), ["line 1", "not a JSON"]),
    "torn in the middle": (lines({})[:50] + "\n" + lines({"exchange": 2}), ["line 1"]),
    "a list": ("[]\n", ["line 1", "not a JSON object"]),
    "a newer version": (lines({}, {"v": 2, "exchange": 2}), ["line 2", "version 2", "reads 1"]),
    "no version": ('{"a": 1}\n', ["line 1", "version None"]),
    "two seeds": (lines({}, {"seed": 8, "exchange": 2}), ["line 2", "two runs"]),
    "twice the same": (lines({}, {}), ["line 2", "two runs"]),
    "another proxy": (lines({"proxy": "other"}), ["'default'", "other"]),
    "a handler unknown": (
        lines({"handler": "latncy", "options": {"latncy": {}}}),
        ["line 1", "'latncy'", "'latency'"],
    ),
    "an option unknown": (
        lines({"options": {"latency": {"latency": "soon"}}}),
        ["line 1", "'soon'"],
    ),
    "an exchange that is none": (lines({"exchange": None}), ["line 1"]),
    "no options": (lines({"options": None}), ["line 1"]),
    "a word for a number": (lines({"connection": "first"}), ["line 1"]),
    "no seed": (lines({"seed": None}), ["line 1"]),
}


@pytest.mark.parametrize("kind", JOURNALS)
def test_a_journal_that_cannot_be_replayed_is_refused_with_the_line(
    kind: str, tmp_path: Path
) -> None:
    text, words = JOURNALS[kind]
    file = tmp_path / "run.jsonl"
    file.write_text(text)
    sentence = refused("--replay", file)
    assert sentence.startswith("--replay: ")
    for word in words:
        assert word in sentence


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["latency", "+", ""]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["latency", "handler", "options"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@given(changes=st.lists(st.dictionaries(st.sampled_from(sorted(LINE)), JSON), max_size=3))
@settings(max_examples=60, deadline=None)
def test_any_journal_is_one_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, changes: list[dict[str, object]]
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.jsonl"
    file.write_text(lines(*changes))
    said = "--replay: it is one"
    try:
        resolve({"replay": Raw(str(file), "--replay")}, [], {})
    except UsageError as error:
        said = str(error)
    assert said.startswith("--replay: ")


@pytest.mark.parametrize("path", ["/no/such/file", "/", ""])
def test_a_journal_that_cannot_be_read_is_refused(path: str) -> None:
    sentence = refused("--replay", path)
    assert repr(path) in sentence


def test_a_journal_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    file.write_bytes(b"\xff\xfe\x00")
    assert str(file) in refused("--replay", file)


def test_the_program_ends_with_2_and_one_sentence_and_does_not_listen(tmp_path: Path) -> None:
    # The same as above, once through the whole program, and what only a run can refuse.
    text = refused_by_program("--behavior", "100:latency", "--handlers.latency.latency", -5)
    assert "--handlers.latency.latency: '-5' is less than 0" in text
    path = tmp_path / "no" / "such"
    text = refused_by_program("--local", "127.0.0.1:0", "--journal", path)
    assert "--journal" in text and str(path) in text


def test_what_is_right_is_accepted(tmp_path: Path) -> None:
    # Else the tests above would refuse whatever comes.
    file = tmp_path / "mine.ini"
    file.write_text("[preset:mine]\nrtt = 10\ndown = 500\nloss = 1\n")
    text = accepted(
        "--check",
        *("--config", file, "--behavior", "20:mine+latency+error,10:3g,5:reset_peer"),
        *("--on-connect", "10:refuse,5:slow_accept", "--handlers.latency.stream", "both"),
        *("--handlers.error.clients", "127.0.0.0/8,!127.0.0.1", "--max-held", 65536),
    )
    assert re.search(r"^  stream +both +--handlers.latency.stream$", text, re.M)
    assert re.search(r"^  clients +127.0.0.0/8,!127.0.0.1 ", text, re.M)
    assert re.search(r"^preset mine +rtt 10, down 500, loss 1$", text, re.M)
    (tmp_path / "run.jsonl").write_text(lines({}, {"exchange": 2}))
    assert resolve({"replay": Raw(str(tmp_path / "run.jsonl"), "--replay")}, [], {})["seed"] == 7
