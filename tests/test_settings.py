"""Settings: where values come from, who beats whom, and what is refused, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaurien.errors import UsageError
from vaurien.options import Raw, key
from vaurien.settings import SETTINGS, Settings, resolve

#: For each setting a value for the file, the environment and the command line, as text and as the
#: value that it means.
VALUES: dict[str, list[tuple[str, object]]] = {
    "local": [("[::1]:0", "[::1]:0"), ("127.0.0.1:7", "127.0.0.1:7"), ("unix:/x", "unix:/x")],
    "distant": [("a:1", "a:1"), ("b.example:2", "b.example:2"), ("[::1]:3", "[::1]:3")],
    "behavior": [(f"{n}:delay", f"{n}:delay") for n in (1, 2, 3)],
    "seed": [("1", 1), ("-2", -2), ("007", 7)],
    "timeout": [("1", 1.0), ("0.5", 0.5), ("3", 3.0)],
    "connect-timeout": [("1", 1.0), ("0.5", 0.5), ("3", 3.0)],
    "keepalive": [("1", 1), ("0", 0), ("32767", 32767)],
    "dns-ttl": [("1", 1.0), ("0", 0.0), ("3", 3.0)],
    "max-connections": [("1", 1), ("2", 2), ("3", 3)],
    "backlog": [("1", 1), ("2", 2), ("3", 3)],
    "spin": [("1", 1), ("2", 2), ("3", 3)],
    "on-connect": [(f"{n}:refuse", f"{n}:refuse") for n in (1, 2, 3)],
    "protocol": [("tcp", "tcp")] * 3,
    "toxics": [(f"{n}: noop", f"{n}: noop") for n in "abc"],
    "max-held": [("1", 1), ("2", 2), ("3", 3)],
    "journal": [(f"/tmp/{n}", f"/tmp/{n}") for n in (1, 2, 3)],
    "journal-all": [("no", False), ("yes", True), ("off", False)],
    # An empty journal, by three names.
    "replay": [(path, path) for path in ("/dev/null", "/dev/./null", "/dev//null")],
    "strict": [("no", False), ("yes", True), ("off", False)],
    "drain": [("1", 1.0), ("0.5", 0.5), ("0", 0.0)],
    "http": [("no", False), ("yes", True), ("off", False)],
    "http-host": [(host, host) for host in ("127.0.0.1", "::1", "api.localhost")],
    "http-port": [("1", 1), ("0", 0), ("65535", 65535)],
    "http-token": [(word, word) for word in ("secret", "none", "s3cr3t")],
    "http-token-file": [(path, path) for path in ("token", "./token", ".//token")],
    "http-allowed-host": [("a", "a"), ("a,b.example", "a,b.example"), (" c ", " c ")],
    "toxiproxy": [("no", False), ("yes", True), ("off", False)],
    "toxiproxy-port": [("1", 1), ("0", 0), ("65535", 65535)],
    "statsd": [(place, place) for place in ("localhost:8125", "127.0.0.1:1", "[::1]:2")],
    "log-format": [(word, word) for word in ("json", "text", "json")],
    "log-level": [(word, word) for word in ("error", "debug", "warning")],
    "log-output": [(f"/tmp/{n}", f"/tmp/{n}") for n in (1, 2, 3)],
}
NAMES = [option.key for option in SETTINGS]
#: What else the file has to say for a setting to be in place.
NEEDS = {
    "journal-all": "journal = /tmp/journal\n",
    "toxiproxy-port": "toxiproxy = yes\n",
    **dict.fromkeys(
        ("http-host", "http-port", "http-token", "http-token-file", "http-allowed-host"),
        "http = yes\n",
    ),
}


def resolved(
    environ: Mapping[str, str] | None = None,
    handlers: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
    **arguments: str,
) -> Settings:
    """The settings from flags, given as keywords, handlers' flags and an environment."""
    given = {**(flags or {}), **arguments}
    raws = {key(name): Raw(value, f"--{key(name)}") for name, value in given.items()}
    options = [(path, Raw(value, f"--handlers.{path}")) for path, value in (handlers or {}).items()]
    return resolve(raws, options, environ or {})


def refused(
    environ: Mapping[str, str] | None = None,
    handlers: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
    **arguments: str,
) -> str:
    """The sentence with which they are refused."""
    with pytest.raises(UsageError) as caught:
        resolved(environ, handlers, flags, **arguments)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def variable(name: str) -> str:
    return "VAURIEN_" + name.replace("-", "_").upper()


def ini(path: Path, text: str) -> str:
    file = path / "vaurien.ini"
    file.write_text(text)
    return str(file)


# Who beats whom


def test_the_defaults_are_those_of_the_documentation() -> None:
    values = resolved().values
    assert values["local"] == "localhost:8000"
    assert values["distant"] == "localhost:80"
    assert values["behavior"] == "100:dummy"
    assert values["timeout"] == 0
    assert values["connect-timeout"] == 10
    assert values["dns-ttl"] == 5
    assert values["keepalive"] == 15
    assert values["max-connections"] == 0
    assert values["drain"] == 5
    assert values["max-held"] == 1 << 20
    for name in ("on-connect", "toxics", "journal", "replay", "http-token", "http-token-file"):
        assert values[name] is None
    assert not values["journal-all"] and not values["strict"]
    assert not values["http"] and not values["toxiproxy"]
    assert (values["http-host"], values["http-port"]) == ("localhost", 8080)
    assert values["toxiproxy-port"] == 8474
    assert values["protocol"] == "tcp"


def test_every_setting_is_tried_below() -> None:
    assert sorted(VALUES) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_command_line_beats_environment_beats_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_text("secret\n")
    (low, in_file), (middle, in_environment), (high, in_arguments) = VALUES[name]
    file = ini(tmp_path, f"[vaurien]\n{name} = {low}\n{NEEDS.get(name, '')}")

    found = resolved(config=file)
    assert found[name] == in_file
    assert found.sources[name] == f"{file}: [vaurien] {name}"

    environ = {variable(name): middle}
    found = resolved(environ, config=file)
    assert found[name] == in_environment
    assert found.sources[name] == variable(name)

    found = resolved(environ, flags={name: high}, config=file)
    assert found[name] == in_arguments
    assert found.sources[name] == f"--{name}"


def test_a_handlers_option_follows_the_same_order(tmp_path: Path) -> None:
    file = ini(tmp_path, "[handler:delay]\nsleep = 1.5\n")
    environ = {"VAURIEN_HANDLERS_DELAY_SLEEP": "2.5"}
    options = {"delay.sleep": "3.5"}

    def sleep(found: Settings) -> object:
        return found.plan.specifications("delay")[0].options["sleep"]

    assert sleep(resolved(behavior="20:delay")) == 1
    assert sleep(resolved(behavior="20:delay", config=file)) == 1.5
    assert sleep(resolved(environ, behavior="20:delay", config=file)) == 2.5
    assert sleep(resolved(environ, options, behavior="20:delay", config=file)) == 3.5


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    file = ini(tmp_path, "[vaurien]\ntimeout = 7\n")
    assert resolved({"VAURIEN_CONFIG": file})["timeout"] == 7


def test_the_flag_config_beats_the_variable(tmp_path: Path) -> None:
    file = ini(tmp_path, "[vaurien]\ntimeout = 7\n")
    assert resolved({"VAURIEN_CONFIG": "/no/such/file"}, config=file)["timeout"] == 7


@pytest.mark.parametrize("spelling", ["max-connections", "max_connections"])
def test_dash_and_underscore_are_the_same_in_the_file(spelling: str, tmp_path: Path) -> None:
    file = ini(tmp_path, f"[vaurien]\n{spelling} = 3\n")
    assert resolved(config=file)["max-connections"] == 3


def test_a_setting_given_in_both_spellings_is_refused(tmp_path: Path) -> None:
    file = ini(tmp_path, "[vaurien]\nmax-connections = 3\nmax_connections = 4\n")
    sentence = refused(config=file)
    assert file in sentence
    assert "max-connections" in sentence or "max_connections" in sentence


def test_two_seeds_that_nobody_gave_are_different() -> None:
    assert len({resolved()["seed"] for _ in range(5)}) > 1


# The environment


def test_a_wrong_value_in_the_environment_is_told_by_its_variable() -> None:
    sentence = refused({"VAURIEN_TIMEOUT": "soon"})
    assert "VAURIEN_TIMEOUT" in sentence
    assert "soon" in sentence


def test_a_wrong_option_in_the_environment_is_told_by_its_variable() -> None:
    sentence = refused({"VAURIEN_HANDLERS_DELAY_SLEEP": "soon"}, behavior="20:delay")
    assert "VAURIEN_HANDLERS_DELAY_SLEEP" in sentence
    assert "soon" in sentence


@pytest.mark.parametrize(
    "name",
    ["VAURIEN_PORT", "VAURIEN_SERVICE_HOST", "VAURIEN_PORT_8000_TCP", "VAURIEN_HANDLERS_X_Y"],
)
def test_an_unknown_variable_only_warns(name: str) -> None:
    (warning,) = resolved({name: "tcp://10.0.0.1:8000"}).warnings
    assert name in warning


def test_a_misspelt_variable_is_told_the_nearest_name() -> None:
    (warning,) = resolved({"VAURIEN_BEHAVIOUR": "20:delay"}).warnings
    assert "'VAURIEN_BEHAVIOR'" in warning


def test_a_misspelt_option_in_the_environment_is_told_the_nearest_name() -> None:
    (warning,) = resolved({"VAURIEN_HANDLERS_DELAY_SLEP": "2"}).warnings
    assert "'VAURIEN_HANDLERS_DELAY_SLEEP'" in warning


def test_other_variables_do_not_warn() -> None:
    assert resolved({"PATH": "/bin", "MY_VAURIEN_X": "1"}).warnings == []


# Behaviors


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("20:delay,5:error", [(20, "delay"), (5, "error")]),
        (" 20 : delay , 5:error ", [(20, "delay"), (5, "error")]),
        ("0.5:error", [(0.5, "error")]),
        (".5:error", [(0.5, "error")]),
        ("100:delay", [(100, "delay")]),
        ("50:dummy,50:delay", [(50, "dummy"), (50, "delay")]),
        ("0:error,100:delay", [(0, "error"), (100, "delay")]),
    ],
)
def test_a_behavior_gives_each_handler_its_share(text: str, parts: list[tuple[float, str]]) -> None:
    plan = resolved(behavior=text).plan
    assert [(float(weight), name) for weight, name in plan.behavior.parts] == parts
    assert set(plan.handlers) == {name for _, name in parts} - {"dummy"}


def test_fractions_that_make_exactly_a_hundred_are_accepted() -> None:
    resolved(behavior=",".join(["0.1:error"] * 1000))
    resolved(behavior="33.3:error,33.3:delay,33.4:reset")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("101:delay", ["101"]),
        ("60:delay,50:error", ["110"]),
        ("100:delay,0.1:error", ["100.1"]),
        ("-5:delay", ["-5", "delay"]),
        ("many:delay", ["many", "delay"]),
        ("nan:delay", ["nan"]),
        ("1e1:delay", ["1e1"]),
        ("20%:delay", ["20%"]),
        ("\N{ARABIC-INDIC DIGIT TWO}:delay", ["\N{ARABIC-INDIC DIGIT TWO}"]),
        ("delay", ["delay", "20:delay"]),
        ("20", ["20:delay"]),
        ("20:", ["20:delay"]),
        (":delay", ["'delay'", "percentage"]),
        ("", ["20:delay"]),
        ("20:delay,", ["20:delay"]),
        ("20:delay,,5:error", ["20:delay"]),
        ("20:delay 5:error", ["delay 5:error"]),
        ("20:delay;5:error", ["delay;5:error"]),
    ],
)
def test_a_wrong_behavior_is_refused_by_name_and_value(text: str, words: list[str]) -> None:
    sentence = refused(behavior=text)
    assert sentence.startswith("--behavior: ")
    for word in words:
        assert word in sentence


def test_an_unknown_handler_is_told_the_nearest() -> None:
    sentence = refused(behavior="20:dleay")
    assert "'dleay'" in sentence
    assert "'delay'" in sentence


def test_a_handler_that_resembles_none_is_told_all() -> None:
    sentence = refused(behavior="20:xyzzy")
    for name in ("abort", "blackout", "delay", "dummy", "error", "hang", "reset", "transient"):
        assert name in sentence


# Handlers' options


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((word, True) for word in ("yes", "on", "true", "1", "YES", "True")),
        *((word, False) for word in ("no", "off", "false", "0", "No", "FALSE")),
    ],
)
def test_a_bool_is_yes_or_no_in_any_usual_word(text: str, value: bool) -> None:
    plan = resolved(handlers={"delay.before": text}, behavior="20:delay").plan
    assert plan.specifications("delay")[0].options["before"] is value


@pytest.mark.parametrize("text", ["maybe", "", "2", "y e s"])
def test_another_bool_is_refused(text: str) -> None:
    sentence = refused(handlers={"delay.before": text}, behavior="20:delay")
    assert "--handlers.delay.before" in sentence
    assert repr(text) in sentence


def test_an_unknown_option_is_told_the_nearest() -> None:
    sentence = refused(handlers={"delay.slep": "1"}, behavior="20:delay")
    assert "--handlers.delay.slep" in sentence
    assert "'sleep'" in sentence


def test_an_option_of_an_unknown_handler_is_told_the_nearest() -> None:
    sentence = refused(handlers={"dleay.sleep": "1"}, behavior="20:delay")
    assert "--handlers.dleay.sleep" in sentence
    assert "'delay'" in sentence


def test_a_choice_that_is_none_is_told_the_nearest() -> None:
    sentence = refused(handlers={"error.scope": "conection"}, behavior="20:error")
    assert "'connection'" in sentence


def test_options_of_a_handler_that_nothing_picks_are_checked_too() -> None:
    assert "soon" in refused(handlers={"delay.sleep": "soon"})


def test_options_of_a_handler_that_nothing_picks_warn() -> None:
    (warning,) = resolved(handlers={"delay.sleep": "1"}).warnings
    assert "delay" in warning


# Single values


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timeout", "-1"),
        ("timeout", "soon"),
        ("timeout", "nan"),
        ("timeout", "inf"),
        ("timeout", ""),
        ("connect-timeout", "0"),
        ("connect-timeout", "-1"),
        ("dns-ttl", "-1"),
        ("keepalive", "0.5"),
        ("keepalive", "32768"),
        ("max-connections", "-1"),
        ("max-connections", "1.5"),
        ("max-connections", "all"),
        ("backlog", "0"),
        ("backlog", "-1"),
        ("spin", "-1"),
        ("drain", "-1"),
        ("drain", "never"),
        ("seed", "x"),
        ("seed", "1.5"),
        ("seed", ""),
        ("http", "maybe"),
        ("http-port", "-1"),
        ("http-port", "65536"),
        ("http-port", "http"),
        ("toxiproxy-port", "70000"),
        ("protocol", "smtp"),
        ("log-level", "loud"),
        ("log-level", ""),
    ],
)
def test_a_value_that_does_not_convert_is_told_by_flag_and_value(name: str, value: str) -> None:
    sentence = refused(flags={name: value})
    assert sentence.startswith(f"--{name}: ")
    assert repr(value) in sentence


def test_a_log_level_is_told_the_nearest() -> None:
    assert "'warning'" in refused(log_level="warnin")


@pytest.mark.parametrize("name", ["local", "distant"])
@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("", "''"),
        ("nonsense", "'nonsense'"),
        ("8000", "'8000'"),
        (":8000", "':8000'"),
        ("localhost", "'localhost'"),
        ("localhost:", "''"),
        ("localhost:htpp-x", "'htpp-x' is not the name of a port"),
        ("localhost:80x ", "'80x'"),
        ("localhost:-1", "'-1'"),
        ("localhost:65536", "'65536'"),
        ("localhost:8 0", "'8 0'"),
        ("localhost:\N{SUPERSCRIPT TWO}", "'\N{SUPERSCRIPT TWO}'"),
        ("local host:80", "'local host'"),
        ("local\0host:80", "local"),
        ("a..b:80", "'a..b'"),
        ("x" * 64 + ".com:80", "x" * 64),
        ("::1:80", "[::1]:"),
        ("[::1]", "[::1]"),
        ("[::1:80", "[::1:80"),
        ("[nonsense]:80", "'nonsense'"),
        ("http://localhost:80", "'http://localhost:80'"),
        ("unix:", "unix:PATH"),
        ("unix:/" + "x" * 107, "107"),
        ("unix:/tmp/\0x", "unix:/tmp/"),
    ],
)
def test_a_wrong_address_is_told_by_flag_and_value(name: str, value: str, word: str) -> None:
    sentence = refused(flags={name: value})
    assert sentence.startswith(f"--{name}: ")
    assert word in sentence


def test_a_backend_at_port_0_is_refused() -> None:
    assert "port 0" in refused(distant="localhost:0")


@pytest.mark.parametrize(
    "value", ["localhost:80", "example.com.:80", "127.0.0.1:0", "[::1]:8000", "unix:x.sock"]
)
def test_an_address_is_printed_as_it_was_written(value: str) -> None:
    assert str(resolved(local=value, distant="backend:1").plan.local) == value


def test_a_proxy_that_would_dial_itself_is_refused() -> None:
    sentence = refused(local="localhost:80", distant="localhost:80")
    assert sentence.startswith("--distant: 'localhost:80' is where Vaurien listens itself")


def test_a_unix_path_need_not_be_utf8() -> None:
    value = b"unix:/tmp/\xff.sock".decode(errors="surrogateescape")
    assert resolved(local=value).plan.local.path == value[len("unix:") :]


def test_a_unix_path_is_measured_in_bytes() -> None:
    assert "107" in refused(local="unix:/" + "\N{EURO SIGN}" * 36)  # 1 + 108 bytes


@pytest.mark.parametrize(
    "arguments",
    [
        {"behavior": "1" * 5000 + ":delay"},
        {"behavior": "0." + "1" * 5000 + ":delay,100:error"},
        {"local": "localhost:" + "1" * 5000},
        {"seed": "1" * 5000},
        {"timeout": "1" * 5000},
        {"backlog": "1" * 5000},
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_absurdly_long_numbers_are_refused(arguments: dict[str, str]) -> None:
    refused(flags=arguments)


def outcome(name: str, value: str) -> Settings | str:
    """The settings with that value, or the sentence that refuses it."""
    try:
        return resolved(flags={name: value})
    except UsageError as error:
        return str(error)


@given(name=st.sampled_from(NAMES), value=st.text())
@settings(max_examples=300)
def test_any_text_is_a_value_or_a_sentence(name: str, value: str) -> None:
    found = outcome(name, value)
    assert isinstance(found, Settings) or found.startswith(f"--{name}: ")


@given(value=st.text(alphabet="0123456789.:,-+ _delayroi\N{SUPERSCRIPT TWO}"))
@settings(max_examples=300)
def test_anything_like_a_behavior_is_one_or_a_sentence(value: str) -> None:
    found = outcome("behavior", value)
    if isinstance(found, Settings):
        assert 0 <= sum(weight for weight, _ in found.plan.behavior.parts) <= 100
    else:
        assert found.startswith("--behavior: ")


@given(value=st.text(alphabet="[]:/.@abcdef0123456789unix -\N{SUPERSCRIPT TWO}"))
@settings(max_examples=300)
def test_anything_like_an_address_is_one_or_a_sentence(value: str) -> None:
    found = outcome("local", value)
    if isinstance(found, Settings):
        again = outcome("local", str(found.plan.local))
        assert isinstance(again, Settings)
        assert again.plan.local == found.plan.local
    else:
        # by default the backend is at localhost:80
        assert found.startswith(("--local: ", "--distant: 'localhost:80' is where Vaurien listens"))


def test_an_emptied_file_makes_no_proxy_while_an_api_runs(tmp_path: Path) -> None:
    file = tmp_path / "farm.ini"
    given = {"config": Raw(str(file), "--config")}
    file.write_text(
        "[vaurien]\nhttp = yes\n[proxy:a]\nlocal = 127.0.0.1:1\ndistant = 127.0.0.1:2\n"
    )
    running = resolve(given, [], {})
    file.write_text("")
    assert [plan.name for plan in resolve(given, [], {}).plans] == ["default"]
    assert resolve(given, [], {}, running=running).plans == ()


def test_a_proxy_and_the_api_at_one_address_are_refused() -> None:
    place = "127.0.0.1:8474"
    with pytest.raises(UsageError, match=rf"--local: {place} is where --toxiproxy is served"):
        resolved(local=place, distant="127.0.0.1:1", toxiproxy="yes")
    with pytest.raises(UsageError, match="is where --http is served"):
        resolved(local=place, distant="127.0.0.1:1", http="yes", http_port="8474")
