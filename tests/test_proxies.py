"""Many proxies: how they are written, when there is one called default, and what is refused.

Law: all of it is checked and in force before the first listener opens.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cli.helpers import accepted, checked
from tests.cli.helpers import refused as refused_by_the_program
from tests.control.farms import Farm, connected, free_port, is_open
from tests.support import Backend, Program, dial, exchange, receive_all, run, wait_for
from tests.test_settings import refused, resolved
from vaurien.plan import Plan
from vaurien.settings import Settings

ONE = "[proxy:one]\nlocal = localhost:1001\ndistant = backend:1\n"
TWO = "[proxy:two]\nlocal = localhost:1002\ndistant = backend:2\n"


def ini(path: Path, text: str) -> str:
    file = path / "farm.ini"
    file.write_text(text)
    return str(file)


def section(name: str = "x", **options: object) -> str:
    given = {"local": "localhost:1001", "distant": "backend:1", **options}
    lines = [f"{option} = {value}" for option, value in given.items() if value is not None]
    return "\n".join([f"[proxy:{name}]", *lines, ""])


def json_file(path: Path, body: object, name: str = "farm.json") -> str:
    file = path / name
    file.write_text(body if isinstance(body, str) else json.dumps(body))
    return str(file)


def names(found: Settings) -> list[str]:
    return [plan.name for plan in found.plans]


def plan_of(found: Settings, name: str) -> Plan:
    (plan,) = (plan for plan in found.plans if plan.name == name)
    return plan


def toxic_words(plan: Plan) -> list[tuple[str, str, str, float, dict[str, object]]]:
    return [
        (
            toxic.name,
            toxic.type,
            toxic.stream,
            float(toxic.toxicity),
            {k: v for k, v in toxic.specification.options.items() if k != "stream"},
        )
        for toxic in plan.toxics
    ]


# Sections


def test_a_section_says_all_there_is_to_say_of_a_proxy(tmp_path: Path) -> None:
    text = section(
        "redis",
        local="127.0.0.1:0",
        distant="redis.example:6379",
        behavior="20:delay,5:error",
        protocol="tcp",
        on_connect="10:refuse",
        toxics="slow: latency latency=100 jitter=5 stream=upstream toxicity=0.5, noop",
        enabled="no",
        seed=42,
    )
    (plan,) = resolved(config=ini(tmp_path, text)).plans
    assert plan.name == "redis"
    assert (str(plan.local), str(plan.distant)) == ("127.0.0.1:0", "redis.example:6379")
    assert str(plan.behavior) == "20:delay,5:error"
    assert str(plan.on_connect) == "10:refuse"
    assert plan.protocol == "tcp"
    assert plan.seed == 42
    assert plan.enabled is False
    slow, noop = plan.toxics
    assert (slow.name, slow.type, slow.stream, slow.toxicity) == (
        "slow",
        "latency",
        "upstream",
        0.5,
    )
    assert slow.specification.options["latency"] == 100
    assert slow.specification.options["jitter"] == 5
    assert noop.type == "noop" and noop.toxicity == 1


def test_what_a_section_does_not_say_is_as_everywhere(tmp_path: Path) -> None:
    found = resolved(config=ini(tmp_path, ONE), seed="5")
    (plan,) = found.plans
    assert str(plan.behavior) == "100:dummy"
    assert not plan.on_connect.parts
    assert plan.toxics == ()
    assert plan.protocol == "tcp"
    assert plan.enabled is True
    assert plan.seed == 5


def test_settings_of_the_whole_run_hold_for_every_proxy(tmp_path: Path) -> None:
    text = f"[vaurien]\ntimeout = 7\nmax-connections = 3\nmax-held = 5\n{ONE}{TWO}"
    for plan in resolved(config=ini(tmp_path, text), backlog="77").plans:
        assert (plan.timeout, plan.max_connections, plan.max_held) == (7, 3, 5)
        assert plan.backlog == 77


@pytest.mark.parametrize("spelling", ["on-connect", "on_connect"])
def test_dash_and_underscore_are_the_same(spelling: str, tmp_path: Path) -> None:
    text = section(**{spelling: "10:refuse"})
    assert str(resolved(config=ini(tmp_path, text)).plans[0].on_connect) == "10:refuse"


def test_an_option_in_both_spellings_is_refused(tmp_path: Path) -> None:
    text = section(**{"on-connect": "10:refuse", "on_connect": "20:refuse"})
    sentence = refused(config=ini(tmp_path, text))
    assert "[proxy:x] on" in sentence and "twice" in sentence


def test_sections_share_the_handlers_of_the_file(tmp_path: Path) -> None:
    text = f"[handler:delay]\nsleep = 0.25\n{section('a', behavior='20:delay')}" + section(
        "b", local="localhost:2", behavior="50:delay"
    )
    for plan in resolved(config=ini(tmp_path, text)).plans:
        assert plan.specifications("delay")[0].options["sleep"] == 0.25


def test_a_section_may_pick_a_handler_of_its_own_section_and_a_preset(tmp_path: Path) -> None:
    text = "[handler:slow]\ncallable = vaurien.handlers.delay.Delay\nsleep = 2\n"
    text += "[preset:bad]\nlatency = 100\n"
    text += section(behavior="20:slow,5:bad")
    (plan,) = resolved(config=ini(tmp_path, text)).plans
    assert plan.specifications("slow")[0].options["sleep"] == 2
    assert plan.specifications("bad")[0].options["latency"] == 100


@pytest.mark.parametrize(
    ("options", "place", "words"),
    [
        ({"behaviour": "20:delay"}, "behaviour", ["'behavior'"]),
        ({"enable": "yes"}, "enable", ["'enabled'"]),
        ({"sedd": 1}, "sedd", ["'seed'"]),
        ({"toxic": "noop"}, "toxic", ["'toxics'"]),
        ({"behavior": "20:dleay"}, "behavior", ["'dleay'", "'delay'"]),
        ({"behavior": "120:delay"}, "behavior", ["120"]),
        ({"behavior": "20:refuse"}, "behavior", ["'refuse'"]),
        ({"on_connect": "20:refsue"}, "on_connect", ["'refsue'", "'refuse'"]),
        ({"on_connect": "20:delay"}, "on_connect", ["'delay'"]),
        ({"protocol": "tpc"}, "protocol", ["'tpc'", "'tcp'"]),
        ({"enabled": "maybe"}, "enabled", ["'maybe'"]),
        ({"enabled": ""}, "enabled", ["''"]),
        ({"seed": "many"}, "seed", ["'many'"]),
        ({"seed": "1.5"}, "seed", ["'1.5'"]),
        ({"local": "localhost"}, "local", ["'localhost'"]),
        ({"local": "localhost:99999"}, "local", ["99999"]),
        ({"distant": "redis"}, "distant", ["'redis'"]),
        ({"distant": "redis:0"}, "distant", ["port 0"]),
        ({"distant": "localhost:1001"}, "distant", ["localhost:1001"]),
        ({"toxics": "latncy"}, "toxics", ["'latncy'", "'latency'"]),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_is_wrong_is_told_by_section_key_and_the_nearest(
    options: Mapping[str, object], place: str, words: list[str], tmp_path: Path
) -> None:
    file = ini(tmp_path, ONE.replace("1001", "1000") + section("wrong", **options))
    sentence = refused(config=file)
    assert sentence.startswith(f"{file}: [proxy:wrong] {place}"), sentence
    for word in words:
        assert word in sentence


@pytest.mark.parametrize("missing", ["local", "distant"])
def test_a_section_has_both_addresses(missing: str, tmp_path: Path) -> None:
    file = ini(tmp_path, section("half", **{missing: None}))
    sentence = refused(config=file)
    assert sentence.startswith(f"{file}: [proxy:half]")
    assert missing in sentence


@pytest.mark.parametrize("title", ["prxy:a", "proxi:a", "proxy", "proxy a", "proxies:a"])
def test_a_misspelt_section_is_refused(title: str, tmp_path: Path) -> None:
    sentence = refused(config=ini(tmp_path, f"[{title}]\nlocal = a:1\ndistant = b:1\n"))
    assert f"[{title}]" in sentence


@pytest.mark.parametrize("name", ["", " ", "a/b", "/", "..", ".", "a\tb"])
def test_a_name_that_no_path_can_have_is_refused(name: str, tmp_path: Path) -> None:
    sentence = refused(config=ini(tmp_path, section(name)))
    assert repr(name.strip()) in sentence or "section" in sentence


@pytest.mark.parametrize("name", ["redis-1", "redis 1", "Überall", "a.b", "a:b", "50%", "default"])
def test_other_names_will_do(name: str, tmp_path: Path) -> None:
    assert names(resolved(config=ini(tmp_path, section(name)))) == [name]


# One called default


def test_without_anything_there_is_a_default() -> None:
    assert names(resolved()) == ["default"]


def test_an_api_alone_has_no_proxy_at_first() -> None:
    assert names(resolved(http="yes")) == []
    assert names(resolved(toxiproxy="yes")) == []
    assert names(resolved({"VAURIEN_HTTP": "1"})) == []


def test_sections_alone_make_no_default(tmp_path: Path) -> None:
    assert names(resolved(config=ini(tmp_path, ONE + TWO))) == ["one", "two"]
    assert names(resolved(config=ini(tmp_path, ONE), http="yes")) == ["one"]


def test_an_api_that_is_off_is_none() -> None:
    assert names(resolved(http="no", toxiproxy="off")) == ["default"]


@pytest.mark.parametrize("word", ["local", "distant", "behavior"])
@pytest.mark.parametrize("layer", ["file", "environment", "command line"])
@pytest.mark.parametrize("beside", ["", ONE])
@pytest.mark.parametrize("http", ["yes", "no"])
def test_an_address_or_a_behavior_anywhere_makes_the_default(
    word: str, layer: str, beside: str, http: str, tmp_path: Path
) -> None:
    value = {"local": "localhost:7", "distant": "there:9", "behavior": "20:delay"}[word]
    file = ini(tmp_path, (f"[vaurien]\n{word} = {value}\n" if layer == "file" else "") + beside)
    environ = {f"VAURIEN_{word.upper()}": value} if layer == "environment" else {}
    flags = {word: value} if layer == "command line" else {}
    found = resolved(environ, flags=flags, config=file, http=http)
    assert names(found) == ["default", *(["one"] if beside else [])]
    assert str(getattr(found.plans[0], word)) == value


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("seed", "4"),
        ("timeout", "4"),
        ("max-held", "5"),
        ("strict", "yes"),
        ("log-level", "error"),
        ("backlog", "4"),
    ],
)
def test_nothing_else_makes_one(word: str, value: str, tmp_path: Path) -> None:
    assert names(resolved(flags={word: value}, http="yes")) == []
    assert names(resolved(flags={word: value}, config=ini(tmp_path, ONE))) == ["one"]


@pytest.mark.parametrize(
    ("word", "value"),
    [("on-connect", "10:refuse"), ("toxics", "noop"), ("protocol", "tcp")],
)
def test_what_would_be_for_a_default_that_is_not_there_is_refused(
    word: str, value: str, tmp_path: Path
) -> None:
    # Law 12: nothing is ignored silently.
    for sentence in (
        refused(flags={word: value}, http="yes"),
        refused(flags={word: value}, config=ini(tmp_path, ONE)),
    ):
        assert sentence.startswith(f"--{word}: ")
        assert "default" in sentence


def test_the_default_has_the_toxics_and_on_connect_of_the_command_line() -> None:
    plan = resolved(distant="a:1", toxics="noop", on_connect="10:refuse", protocol="tcp").plan
    assert [toxic.type for toxic in plan.toxics] == ["noop"]
    assert str(plan.on_connect) == "10:refuse"


def test_a_section_called_default_beside_the_flags_is_refused(tmp_path: Path) -> None:
    sentence = refused(config=ini(tmp_path, section("default")), local="localhost:5")
    assert "'default'" in sentence and "twice" in sentence


# Names and addresses


@pytest.mark.parametrize("second", ["[proxy:one]", "[proxy: one]", "[proxy:one ]"])
def test_two_proxies_of_one_name_are_refused(second: str, tmp_path: Path) -> None:
    sentence = refused(config=ini(tmp_path, ONE + TWO.replace("[proxy:two]", second)))
    assert "one" in sentence and "twice" in sentence


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("localhost:1001", "localhost:1001"),
        ("127.0.0.1:1001", "127.0.0.1:1001"),
        ("[::1]:1001", "[::1]:1001"),
        ("unix:/tmp/x", "unix:/tmp/x"),
    ],
)
def test_two_proxies_of_one_address_are_refused(one: str, other: str, tmp_path: Path) -> None:
    text = section("a", local=one) + section("b", local=other)
    sentence = refused(config=ini(tmp_path, text))
    assert "'a'" in sentence and "'b'" in sentence
    assert one in sentence


def test_port_0_is_not_one_address(tmp_path: Path) -> None:
    text = section("a", local="localhost:0") + section("b", local="localhost:0")
    assert names(resolved(config=ini(tmp_path, text))) == ["a", "b"]


def test_a_disabled_one_is_in_nobodys_way(tmp_path: Path) -> None:
    text = section("a") + section("b", enabled="no")
    assert names(resolved(config=ini(tmp_path, text))) == ["a", "b"]


def test_a_proxy_at_the_apis_address_is_refused(tmp_path: Path) -> None:
    port = free_port()
    file = ini(tmp_path, section("a", local=f"127.0.0.1:{port}"))
    result = run("--config", file, "--http", "--http-host", "127.0.0.1", "--http-port", port)
    assert result.returncode in (1, 2)
    assert "Traceback" not in result.stderr
    assert f"127.0.0.1:{port}" in result.stderr


# Toxics in one line


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("noop", [("noop", "noop", "both", 1.0)]),
        ("mine: noop", [("mine", "noop", None, 1.0)]),
        ("latency latency=100 stream=upstream", [("latency_upstream", "latency", "upstream", 1.0)]),
        ("latency latency=100 stream=downstream toxicity=0.25",
         [("latency_downstream", "latency", "downstream", 0.25)]),
        ("latency latency=1 stream=both", [("latency_both", "latency", "both", 1.0)]),
        ("a: latency latency=1 , b: latency latency=2,noop toxicity=0",
         [("a", "latency", None, 1.0), ("b", "latency", None, 1.0), (None, "noop", None, 0.0)]),
        ("  x:   slicer   average-size=10  ", [("x", "slicer", None, 1.0)]),
        ("x: slicer average_size=10", [("x", "slicer", None, 1.0)]),
        ("blackhole", [(None, "blackhole", None, 1.0)]),
    ],
)  # fmt: skip
def test_toxics_are_written_in_one_line(text: str, found: list[Any], tmp_path: Path) -> None:
    plans = resolved(config=ini(tmp_path, section(toxics=text))).plans
    toxics = plans[0].toxics
    assert len(toxics) == len(found)
    for toxic, (name, kind, stream, toxicity) in zip(toxics, found, strict=True):
        assert toxic.type == kind
        assert toxic.toxicity == toxicity
        if name is not None and not name.startswith("noop"):
            assert toxic.name == name
        if stream is not None and kind != "noop":
            assert toxic.stream == stream


def test_an_own_flow_handler_is_a_toxic_too(tmp_path: Path) -> None:
    text = "[handler:crawl]\ncallable = vaurien.handlers.latency.Latency\nlatency = 300\n"
    (plan,) = resolved(config=ini(tmp_path, text + section(toxics="crawl jitter=2"))).plans
    ((_, kind, _, _, options),) = toxic_words(plan)
    assert kind == "crawl"
    assert (options["latency"], options["jitter"]) == (300, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["TYPE"]),
        ("noop,", ["TYPE"]),
        ("noop,,noop", ["TYPE"]),
        ("name:", ["name:"]),
        ("latency=100", ["latency=100"]),
        ("latency 100", ["latency 100"]),
        ("latency latency=", ["latency="]),
        ("latency =100", ["=100"]),
        ("latency latency = 100", ["latency = 100"]),
        ("latncy latency=1", ["'latncy'", "'latency'"]),
        ("latency latncy=1", ["'latncy'", "'latency'"]),
        ("latency latency=soon", ["latency", "'soon'"]),
        ("latency latency=-1", ["latency", "'-1'"]),
        ("latency latency=1 latency=2", ["latency", "twice"]),
        ("latency stream=upsteam", ["'upsteam'", "'upstream'"]),
        ("latency toxicity=2", ["toxicity", "2"]),
        ("latency toxicity=-0.1", ["toxicity", "-0.1"]),
        ("latency toxicity=many", ["toxicity", "many"]),
        ("latency toxicity=nan", ["toxicity"]),
        ("error", ["'error'"]),
        ("refuse", ["'refuse'"]),
        ("latency since=5", ["since"]),
        ("latency times=5", ["times"]),
        ("noop,noop", ["'noop_downstream'"]),
        ("a: noop, a: latency", ["'a'"]),
    ],
)
def test_wrong_toxics_are_told_by_section_and_word(
    text: str, words: list[str], tmp_path: Path
) -> None:
    file = ini(tmp_path, section("wrong", toxics=text))
    sentence = refused(config=file)
    assert f"{file}: [proxy:wrong] toxics" in sentence
    for word in words:
        assert word in sentence, sentence


def test_wrong_toxics_of_the_command_line_are_told_by_their_flag() -> None:
    assert refused(distant="a:1", toxics="latncy").startswith("--toxics: ")
    sentence = refused({"VAURIEN_TOXICS": "latncy"}, distant="a:1")
    assert sentence.startswith("VAURIEN_TOXICS: ")


# JSON


BODY = {"name": "redis", "listen": "127.0.0.1:1001", "upstream": "backend:1"}
TOXIC = {
    "name": "slow",
    "type": "latency",
    "stream": "upstream",
    "toxicity": 0.5,
    "attributes": {"latency": 100, "jitter": 5},
}


@pytest.mark.parametrize("name", ["farm.json", "farm.conf", "FARM.JSON"])
def test_a_file_of_toxiproxys_will_do(name: str, tmp_path: Path) -> None:
    other = {"name": "off", "listen": "localhost:0", "upstream": "b:2", "enabled": False}
    found = resolved(config=json_file(tmp_path, [{**BODY, "toxics": [TOXIC]}, other], name))
    assert names(found) == ["redis", "off"]
    redis, off = found.plans
    assert (str(redis.local), str(redis.distant)) == ("127.0.0.1:1001", "backend:1")
    assert redis.enabled and not off.enabled
    (toxic,) = redis.toxics
    assert (toxic.name, toxic.type, toxic.stream) == ("slow", "latency", "upstream")
    assert toxic.toxicity == 0.5
    assert toxic.specification.options["latency"] == 100
    assert toxic.specification.options["jitter"] == 5


def test_a_toxic_in_json_has_toxiproxys_defaults(tmp_path: Path) -> None:
    found = resolved(config=json_file(tmp_path, [{**BODY, "toxics": [{"type": "latency"}]}]))
    (toxic,) = found.plans[0].toxics
    assert (toxic.name, toxic.stream, toxic.toxicity) == ("latency_downstream", "downstream", 1)
    assert toxic.specification.options["latency"] == 0


def test_vauriens_own_fields_may_stand_in_json(tmp_path: Path) -> None:
    own = {"behavior": "20:delay", "on_connect": "10:refuse", "protocol": "tcp", "seed": 42}
    (plan,) = resolved(config=json_file(tmp_path, [{**BODY, **own}])).plans
    assert (str(plan.behavior), str(plan.on_connect), plan.seed) == ("20:delay", "10:refuse", 42)


def test_json_may_name_a_file_and_a_dotted_path_as_an_ini_file_may(tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    samples.write_text("1 2 3")
    toxic = {"type": "latency", "attributes": {"distribution": str(samples)}}
    body = {
        **BODY,
        "toxics": [toxic],
        "behavior": "20:examples.handlers.Unavailable,10:latency",
        "on_connect": "10:refuse",
    }
    arguments = ("--config", json_file(tmp_path, [body]), "--http", "--http-port", 0, "--check")
    output = accepted(*arguments)
    assert f"distribution={samples}" in output
    assert "examples.handlers.Unavailable" in output


def test_what_json_picks_is_picked(tmp_path: Path) -> None:
    bodies = [{**BODY, "behavior": "20:delay", "on_connect": "10:slow_accept"}]
    options = {"delay.sleep": "0.5", "slow_accept.delay": "0.5"}
    found = resolved(config=json_file(tmp_path, bodies), handlers=options)
    assert found.warnings == []
    (warning,) = resolved(config=json_file(tmp_path, [BODY]), handlers=options).warnings[:1]
    assert "no behavior picks" in warning


def test_a_value_in_json_is_plain(tmp_path: Path) -> None:
    toxic = {"type": "latency", "attributes": {"distribution": ["normal"]}}
    assert "not a plain value" in refused(config=json_file(tmp_path, [{**BODY, "toxics": [toxic]}]))


def test_json_may_stand_beside_flags(tmp_path: Path) -> None:
    found = resolved(config=json_file(tmp_path, [BODY]), timeout="3", seed="9")
    assert names(found) == ["redis"]
    assert (found.plans[0].timeout, found.plans[0].seed) == (3, 9)
    assert names(resolved(config=json_file(tmp_path, [BODY]), distant="a:1")) == [
        "default",
        "redis",
    ]


def test_an_empty_list_has_no_proxies(tmp_path: Path) -> None:
    assert names(resolved(config=json_file(tmp_path, []), http="yes")) == []


def test_a_file_of_proxies_is_read_as_toxiproxy_reads_it(tmp_path: Path) -> None:
    text = """[
      {"Name": "redis", "Listen": "127.0.0.1:1001", "UPSTREAM": "127.0.0.1:1002",
       "Toxics": [{"Type": "latency", "Stream": "DownStream", "Attributes": {"Latency": 5}}]},
      {"name": "off", "name": "mysql", "upstream": "127.0.0.1:1003", "Enabled": false,
       "BEHAVIOR": "20:delay"}
    ]
    // whoever reads on finds this
    """
    plans = resolved(config=json_file(tmp_path, text), http="yes").plans
    assert [(plan.name, str(plan.distant), plan.enabled) for plan in plans] == [
        ("redis", "127.0.0.1:1002", True),
        ("mysql", "127.0.0.1:1003", False),
    ]
    (toxic,) = plans[0].toxics
    assert (toxic.name, toxic.stream) == ("latency_DownStream", "DownStream")
    assert toxic.specification.options["latency"] == 5
    assert str(plans[1].behavior) == "20:delay"


def test_a_file_of_proxies_without_the_ending_may_have_text_behind_the_list(
    tmp_path: Path,
) -> None:
    path = tmp_path / "proxies"
    path.write_text(json.dumps([BODY]) + "// text")
    assert names(resolved(config=str(path), http="yes")) == ["redis"]


@pytest.mark.parametrize("section", ["[1]", "[true]", '["vaurien"]'])
def test_a_section_that_looks_like_json_is_one_of_an_ini_file(section: str, tmp_path: Path) -> None:
    assert "section" in refused(config=ini(tmp_path, f"{section}\nlocal = localhost:1\n"))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("[{", ["JSON"]),
        ("{}", ["list"]),
        ("[NaN]", ["NaN"]),
        ("[1]", ["proxy 1"]),
        ([BODY, {**BODY, "name": None}], ["name", "proxy 2"]),
        ([BODY, {**BODY, "name": "b", "upstream": None}], ["upstream", "proxy 2"]),
        ([{**BODY, "upsteam": "x:1"}], ["'upsteam'", "'upstream'", "proxy 1"]),
        ([{**BODY, "enabled": "yes"}], ["enabled", "'yes'", "proxy 1"]),
        ([{**BODY, "name": "a/b"}], ["'a/b'", "proxy 1"]),
        ([{**BODY, "listen": "localhost"}], ["listen", "'localhost'", "proxy 1"]),
        ([{**BODY, "upstream": "b"}], ["upstream", "'b'", "proxy 1"]),
        ([{**BODY, "behavior": "20:dleay"}], ["'dleay'", "'delay'", "proxy 1"]),
        ([{**BODY, "behavior": "20:no.such.Thing"}], ["'no.such.Thing'", "proxy 1: behavior"]),
        ([{**BODY, "on_connect": "200:refuse"}], ["200", "proxy 1: on_connect"]),
        ([{**BODY, "seed": 1.5}], ["seed", "1.5", "proxy 1"]),
        ([{**BODY, "toxics": {}}], ["toxics", "proxy 1"]),
        ([{**BODY, "toxics": [{"type": "latncy"}]}], ["'latncy'", "'latency'", "proxy 1"]),
        ([{**BODY, "toxics": [{**TOXIC, "stream": "upsteam"}]}],
         ["stream", "'upsteam'", "'upstream'", "proxy 1"]),
        ([{**BODY, "toxics": [{**TOXIC, "toxicity": 2}]}], ["toxicity", "2", "proxy 1"]),
        ([{**BODY, "toxics": [{**TOXIC, "attributes": {"latncy": 1}}]}],
         ["'latncy'", "'latency'", "proxy 1"]),
        ([{**BODY, "toxics": [TOXIC, TOXIC]}], ["'slow'", "proxy 1"]),
        ([BODY, {**BODY, "listen": "localhost:0"}], ["'redis'", "twice"]),
        ([BODY, {**BODY, "name": "b"}], ["'redis'", "'b'", "127.0.0.1:1001"]),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_wrong_in_json_is_told_by_its_place(
    body: object, words: list[str], tmp_path: Path
) -> None:
    sentence = refused(config=json_file(tmp_path, body))
    for word in words:
        assert word in sentence, sentence


def test_a_json_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert "nothing.json" in refused(config=str(tmp_path / "nothing.json"))


# Seeds


def test_each_proxy_may_have_a_seed_of_its_own(tmp_path: Path) -> None:
    text = section("a", seed=1) + section("b", local="localhost:2", seed=-7)
    text += section("c", local="localhost:3")
    assert [plan.seed for plan in resolved(config=ini(tmp_path, text), seed="5").plans] == [
        1,
        -7,
        5,
    ]


def test_a_drawn_seed_is_that_of_all_who_have_none(tmp_path: Path) -> None:
    found = resolved(config=ini(tmp_path, ONE + TWO))
    assert {plan.seed for plan in found.plans} == {found["seed"]}
    assert found.sources["seed"] == "drawn"


# --check and --list-handlers


def test_check_shows_each_proxy_with_its_toxics(tmp_path: Path) -> None:
    text = section("one", behavior="20:delay", on_connect="10:refuse", seed=42)
    text += section("two", local="localhost:2", enabled="no", toxics="slow: latency latency=100")
    output = accepted("--check", "--config", ini(tmp_path, text))
    one, two = output.index("proxy one"), output.index("proxy two")
    assert one < two
    first, second = output[one:two], output[two:]
    assert "localhost:1001" in first and "backend:1" in first
    assert "20:delay" in first and "10:refuse" in first
    assert "42" in first, "the seed of its own is not told"
    assert "disabled" in second.splitlines()[0] and "disabled" not in first
    assert "toxic slow" in second and "latency=100" in second
    assert "localhost:8000" not in output, "there is no default"


def test_check_shows_the_default_beside_the_others(tmp_path: Path) -> None:
    output = accepted("--check", "--config", ini(tmp_path, ONE), "--local", "localhost:77")
    assert re.search(r"^local +localhost:77 +--local$", output, re.M)
    assert re.search(r"^proxy one +localhost:1001 to backend:1", output, re.M)


def test_check_of_an_api_alone_shows_no_proxy() -> None:
    found = checked("--http", "--http-port", 0)
    assert found["http"] == ("yes", "--http")
    assert "local" not in found and "distant" not in found


def test_check_never_shows_the_token() -> None:
    output = accepted("--check", "--http", "--http-token", "s3cr3t-s3cr3t")
    assert "s3cr3t" not in output
    output = accepted("--check", env={"VAURIEN_HTTP": "1", "VAURIEN_HTTP_TOKEN": "s3cr3t-s3cr3t"})
    assert "s3cr3t" not in output


def test_check_builds_the_handlers_of_all_proxies(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "class Broken:\n    name = 'broken'\n    options = {}\n"
        "    def __init__(self, settings=None, proxy=None):\n        raise ValueError('no luck')\n"
        "    def __call__(self, client_sock, backend_sock, to_backend):\n        return True\n"
    )
    text = ONE + section("last", local="localhost:2", behavior="1:mine.Broken")
    result = run("--check", "--config", ini(tmp_path, text), cwd=tmp_path)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "no luck" in result.stderr or "broken" in result.stderr.lower()


def test_list_handlers_has_those_of_the_file(tmp_path: Path) -> None:
    text = "[handler:slow]\ncallable = vaurien.handlers.delay.Delay\n[preset:bad]\nlatency = 100\n"
    output = accepted("--list-handlers", "--config", ini(tmp_path, text + ONE))
    assert re.search(r"^slow \(flow\): ", output, re.M)
    assert re.search(r"^error \(socket\): ", output, re.M)
    assert re.search(r"^latency \(flow\): ", output, re.M)
    assert re.search(r"^refuse \(connect\): ", output, re.M)
    assert re.search(r"^ +bad: ", output, re.M)


def test_check_takes_json(tmp_path: Path) -> None:
    output = accepted("--check", "--config", json_file(tmp_path, [{**BODY, "toxics": [TOXIC]}]))
    assert "proxy redis" in output
    assert "toxic slow" in output and "toxicity 0.5" in output


# The environment


def test_all_may_come_from_the_environment(tmp_path: Path, echo_backend: Backend) -> None:
    env = {
        "VAURIEN_DISTANT": echo_backend.address,
        "VAURIEN_LOCAL": "127.0.0.1:0",
        "VAURIEN_BEHAVIOR": "100:error",
        "VAURIEN_TOXICS": "noop",
        "VAURIEN_SEED": "3",
        "VAURIEN_HANDLERS_ERROR_TIMES": "1",
        "VAURIEN_HTTP": "yes",
        "VAURIEN_HTTP_PORT": "0",
        "VAURIEN_CONFIG": ini(tmp_path, section("two", local="127.0.0.1:0")),
    }
    with Farm(env=env, ready=2, has_api=False) as farm:
        wait_for(lambda: any(line.startswith("http listening") for line in farm.output))
        assert list(farm.proxies) == ["default", "two"]
        assert farm.seeds == {"default": 3, "two": 3}
        assert farm.backends["default"] == echo_backend.address


@pytest.mark.parametrize("name", ["VAURIEN_HOST", "VAURIEN_HTTP_TOKEN"])
def test_what_vaurienctl_reads_does_not_warn(name: str) -> None:
    assert resolved({name: "x"}).warnings == []


# For real


def test_a_farm_of_fifty_serves_at_once(tmp_path: Path) -> None:
    def named(sock: socket.socket) -> None:
        sock.sendall(b"%d" % sock.getsockname()[1])

    with Backend(named) as one, Backend(named) as other:
        backends = [one, other]
        text = "[proxy:off]\nlocal = 127.0.0.1:0\ndistant = 127.0.0.1:1\nenabled = no\n"
        for number in range(50):
            distant = backends[number % 2].address
            text += section(f"p{number}", local="127.0.0.1:0", distant=distant)
        with Farm("--config", ini(tmp_path, text), ready=50) as farm:
            assert list(farm.proxies) == [f"p{number}" for number in range(50)]
            assert len(set(farm.proxies.values())) == 50
            for number in range(50):
                with farm_dial(farm, number) as client:
                    assert receive_all(client) == b"%d" % backends[number % 2].port
            assert list(farm.api.get("/proxies")) == ["off", *farm.proxies]
            assert len(farm.output) == 51, "a line for each that listens, and one for the API"


def farm_dial(farm: Farm, number: int) -> socket.socket:
    return dial(farm.proxies[f"p{number}"])


def test_what_is_configured_is_in_force_at_the_first_byte(tmp_path: Path) -> None:
    def script(sock: socket.socket) -> None:
        sock.sendall(b"x" * 100)

    body: dict[str, Any] = {"name": "a", "listen": "127.0.0.1:0"}
    limit = {"type": "limit_data", "attributes": {"bytes": 7}}
    with Backend(script) as backend:
        body = {**body, "upstream": backend.address, "toxics": [limit]}
        ini_text = section(
            "b", local="127.0.0.1:0", distant=backend.address,
            toxics="limit_data bytes=7 stream=downstream",
        )  # fmt: skip
        for file in (json_file(tmp_path, [body]), ini(tmp_path, ini_text)):
            with Farm("--config", file, ready=1, has_api=False) as farm:
                (address,) = farm.proxies.values()
                with dial(address) as client:
                    assert receive_all(client) == b"x" * 7


def test_enabled_no_listens_when_it_is_enabled(tmp_path: Path, echo_backend: Backend) -> None:
    port = free_port()
    text = section("off", local=f"127.0.0.1:{port}", distant=echo_backend.address, enabled="no")
    with Farm("--config", ini(tmp_path, text)) as farm:
        assert not is_open(f"127.0.0.1:{port}")
        assert farm.api.get("/proxies/off")["enabled"] is False
        found = farm.api.post("/proxies/off/enable")
        assert found["enabled"] is True and found["local"] == f"127.0.0.1:{port}"
        with connected(f"127.0.0.1:{port}"):
            pass


def test_a_wrong_last_section_and_nothing_ever_listens(tmp_path: Path) -> None:
    ports = [free_port() for _ in range(10)]
    text = "".join(section(f"p{port}", local=f"127.0.0.1:{port}") for port in ports)
    file = ini(tmp_path, text + section("last", behavior="20:dleay"))
    program = Program("--config", file, "--http", "--http-port", 0).spawn()
    try:
        seen = False
        while program.process.poll() is None:
            seen = seen or any(is_open(f"127.0.0.1:{port}") for port in ports)
        assert program.wait() == 2
        assert not seen, "one of them listened for a moment"
        assert program.output == []
        (line,) = program.log
        assert line.startswith(f"vaurien: {file}: [proxy:last] behavior")
    finally:
        program.__exit__()


def test_a_port_in_use_and_none_listens(tmp_path: Path) -> None:
    ports = [free_port() for _ in range(5)]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        used = taken.getsockname()[1]
        text = "".join(section(f"p{port}", local=f"127.0.0.1:{port}") for port in ports)
        file = ini(tmp_path, text + section("last", local=f"127.0.0.1:{used}"))
        sentence = refused_by_the_program("--config", file, code=1)
        assert f"127.0.0.1:{used}" in sentence
        assert "last" in sentence, "it does not say whose address it is"
        assert not any(is_open(f"127.0.0.1:{port}") for port in ports)


def test_a_unix_socket_is_gone_when_another_cannot_listen(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        text = section("first", local=f"unix:{path}")
        text += section("last", local=f"127.0.0.1:{taken.getsockname()[1]}")
        refused_by_the_program("--config", ini(tmp_path, text), code=1)
    assert not path.exists()


def test_an_api_port_in_use_and_no_proxy_listens(tmp_path: Path) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        used = taken.getsockname()[1]
        file = ini(tmp_path, section("one", local=f"127.0.0.1:{port}"))
        arguments = ("--config", file, "--http", "--http-host", "127.0.0.1", "--http-port", used)
        sentence = refused_by_the_program(*arguments, code=1)
    assert "--http-port" in sentence and str(used) in sentence
    assert not is_open(f"127.0.0.1:{port}")


# Journal, replay, seeds, with several proxies


def answers(farm: Farm, name: str, connections: int = 5, exchanges: int = 6) -> list[bytes]:
    """What each exchange of some connections got, one after the other; b"-" for nothing."""
    found = []
    for _ in range(connections):
        with contextlib.suppress(ConnectionError), dial(farm.proxies[name]) as client:
            for _ in range(exchanges):
                found.append(b"-")
                found[-1] = exchange(client, b"hello world") or b"-"
    return found


def farm_file(tmp_path: Path, backend: Backend, **seeds: object) -> str:
    text = ""
    for name in ("a", "b", "c"):
        text += section(
            name,
            local="127.0.0.1:0",
            distant=backend.address,
            behavior="100:dummy" if name == "c" else "40:corrupt,10:reset",
            seed=seeds.get(name),
        )
    return ini(tmp_path, "[handler:corrupt]\nchance = 50\n" + text)


def test_a_journal_has_each_proxys_exchanges_and_its_seed(
    tmp_path: Path, echo_backend: Backend
) -> None:
    journal = tmp_path / "run.jsonl"
    file = farm_file(tmp_path, echo_backend, b=77)
    arguments = ("--config", file, "--seed", 5, "--journal", journal)
    with Farm(*arguments, ready=3, has_api=False) as farm:
        for name in farm.proxies:
            answers(farm, name)
        assert farm.stop() == 0
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert {(line["proxy"], line["seed"]) for line in lines} == {("a", 5), ("b", 77)}


def test_proxies_of_one_seed_have_dice_of_their_own(tmp_path: Path, echo_backend: Backend) -> None:
    # Law 9: the name of the proxy is in each draw.
    file = farm_file(tmp_path, echo_backend)
    with Farm("--config", file, "--seed", 5, ready=3, has_api=False) as farm:
        one, other = answers(farm, "a"), answers(farm, "b")
        assert one != other
        assert set(answers(farm, "c")) == {b"hello world"}
    with Farm("--config", file, "--seed", 5, ready=3, has_api=False) as farm:
        assert (answers(farm, "a"), answers(farm, "b")) == (one, other)


def test_a_replay_gives_each_proxy_its_decisions_and_its_seed(
    tmp_path: Path, echo_backend: Backend
) -> None:
    journal = tmp_path / "run.jsonl"
    file = farm_file(tmp_path, echo_backend, b=77)
    with Farm("--config", file, "--journal", journal, ready=3, has_api=False) as farm:
        seed = farm.seeds["a"]
        before = {name: answers(farm, name) for name in farm.proxies}
        assert farm.stop() == 0
    assert any(answer != b"hello world" for answer in before["a"])
    assert any(answer != b"hello world" for answer in before["b"])
    other = tmp_path / "other"
    other.mkdir()
    calm = farm_file(other, echo_backend, b=1)
    with Farm("--config", calm, "--replay", journal, ready=3, has_api=False) as farm:
        assert farm.seeds["a"] == seed
        assert farm.seeds["b"] == 77
        assert {name: answers(farm, name) for name in farm.proxies} == before
        assert farm.stop() == 0
        assert "has nothing of c" in farm.text
        assert not re.search(r"did not come", farm.text)


def test_a_replay_of_strangers_is_refused(tmp_path: Path) -> None:
    journal = tmp_path / "run.jsonl"
    line = {"v": 1, "seed": 7, "proxy": "stranger", "connection": 1, "exchange": 1}
    journal.write_text(
        json.dumps({**line, "handler": "corrupt", "options": {"corrupt": {}}}) + "\n"
    )
    sentence = refused(config=ini(tmp_path, ONE + TWO), replay=str(journal))
    assert sentence.startswith("--replay: ")
    assert str(journal) in sentence
