"""JSON as Toxiproxy reads it; the recordings in tests/wire show that the real server does so."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaurien import gojson, strictjson
from vaurien.errors import UsageError

KNOWN = {"name": (str,), "size": (int, float), "values": (dict,), "k_s": (bool,)}


def read(text: bytes | str) -> Any:
    return gojson.fields(gojson.load(text.encode() if isinstance(text, str) else text), KNOWN)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"NAME": "a"}', {"name": "a"}),
        ('{"nAmE": "a", "name": "b", "Name": "c"}', {"name": "c"}),
        ('{"name": "a", "Name": null}', {"name": "a"}),
        ('{"name": null, "Name": "a"}', {"name": "a"}),
        ('{"\u017fize": 1, "\u212a_\u017f": true}', {"size": 1, "k_s": True}),
        ('{"values": {"a": 1, "B": 1}, "Values": {"b": 2}, "values": null}',
         {"values": {"a": 1, "B": 1, "b": 2}}),
        ('{"name": "a"} text', {"name": "a"}),
        ('\t\r\n {"name": "a"}{"name": "b"}', {"name": "a"}),
        ("null", {}),
        (b'{"name": "a\xff\xfe\xe2\x82b"}', {"name": "a\ufffd\ufffd\ufffd\ufffdb"}),
        (b'{"name": "a\xed\xa0\x80b"}', {"name": "a\ufffd\ufffd\ufffdb"}),
        ('{"name": "a\\ud800b\\ud83d\\ude00"}', {"name": "a\ufffdb\U0001f600"}),
    ],
)  # fmt: skip
def test_what_go_takes_is_taken_as_go_takes_it(text: bytes | str, found: object) -> None:
    assert read(text) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["none"]),
        ("  ", ["no JSON"]),
        ("text {}", ["no JSON"]),
        ('{"name": "a",} {}', ["no JSON"]),
        ('\ufeff{"name": "a"}', ["no JSON"]),
        ('{"name": NaN}', ["NaN"]),
        ('{"name": "a\tb"}', ["no JSON"]),
        ('{"Valeus": {}}', ["'Valeus'", "did you mean 'values'?"]),
        ('{"name": 1, "Name": "a"}', ["name is 1, not text"]),
        ('{"Size": true}', ["size is true, not a number"]),
        ("[]", ["a list, not an object"]),
        ("[" * 100_000, ["nested"]),
    ],
)
def test_the_rest_is_refused_by_name(text: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as error:
        read(text)
    for word in words:
        assert word in str(error.value)


def test_a_name_that_is_known_in_two_cases_means_the_one_that_it_is() -> None:
    body = gojson.load(b'{"size": 1, "Size": 2}')
    assert gojson.named(body, ["Size", "size"]) == {"size": 1, "Size": 2}


@given(
    st.dictionaries(
        st.sampled_from([*KNOWN]),
        st.text() | st.integers() | st.booleans() | st.dictionaries(st.text(max_size=3), st.none()),
    )
)
def test_what_strict_json_takes_is_read_alike(body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()
    assert _read(gojson, data) == _read(strictjson, data)


def _read(module: Any, data: bytes) -> object:
    try:
        return module.fields(module.load(data), KNOWN)
    except UsageError as error:
        return str(error)
