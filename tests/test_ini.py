"""INI files: what konfig promises works, and whatever is wrong is told by file, section, option."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vaurien import ini
from vaurien.errors import UsageError
from vaurien.options import Raw
from vaurien.settings import Settings, resolve


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def refused(path: str) -> str:
    """The sentence with which the file is refused, in itself or for what it says."""
    with pytest.raises(UsageError) as caught:
        resolved(path)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert path in sentence
    return sentence


def resolved(path: str) -> Settings:
    return resolve({"config": Raw(path, "--config")}, [], {})


def read(path: str) -> dict[str, dict[str, str]]:
    """The text of all options, by section."""
    return {
        section: {name: raw.value for name, raw in options.items()}
        for section, options in ini.read(path).items()
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "vaurien.ini"


# What works


def test_a_file_is_read_section_by_section(file: Path) -> None:
    path = write(file, "[vaurien]\nlocal = a:1\n\n[handler:delay]\nsleep=2\nbefore: no\n")
    assert read(path) == {
        "vaurien": {"local": "a:1"},
        "handler:delay": {"sleep": "2", "before": "no"},
    }


def test_an_empty_file_leaves_the_defaults(file: Path) -> None:
    assert resolved(write(file, ""))["local"] == "localhost:8000"


@pytest.mark.parametrize("mark", "#;")
def test_lines_that_begin_with_a_mark_are_comments(mark: str, file: Path) -> None:
    text = (
        "# one\n[vaurien]\n  # two\ntimeout = 3\n#timeout = 4\nbehavior =\n  # 1:reset\n  2:error"
    )
    found = resolved(write(file, text.replace("#", mark)))
    assert (found["timeout"], found["behavior"]) == (3, "2:error")


def test_each_value_knows_the_file_the_section_and_the_option_where_it_stands(
    tmp_path: Path, file: Path
) -> None:
    base = write(tmp_path / "base.ini", "[vaurien]\nbacklog = 2\n")
    path = write(file, "[DEFAULT]\nextends = base.ini\n[vaurien]\ntimeout = 3\n")
    found = resolved(path)
    assert found.sources["timeout"] == f"{path}: [vaurien] timeout"
    assert found.sources["backlog"] == f"{base}: [vaurien] backlog"


def test_a_byte_order_mark_does_no_harm(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf[vaurien]\ntimeout = 3\n")
    assert resolved(str(file))["timeout"] == 3


def test_windows_line_ends_do_no_harm(file: Path) -> None:
    file.write_bytes(b"[vaurien]\r\ntimeout = 3\r\nbehavior =\r\n  20:delay\r\n  5:error\r\n")
    found = resolved(str(file))
    assert found["timeout"] == 3
    assert found["behavior"] == "20:delay,5:error"


@pytest.mark.parametrize(
    "text",
    [
        "007",
        "1.10",
        "true",
        "-5",
        ".5",
        "1e3",
        "50%",
        "a = b",
        "[x]",
        "a ; b # c",
        "a\N{LINE SEPARATOR}b",
    ],
)
def test_text_stays_text(text: str, file: Path) -> None:
    assert read(write(file, f"[handler:x]\nfoo = {text}\n"))["handler:x"]["foo"] == text


def test_quotes_keep_outer_spaces(file: Path) -> None:
    assert read(write(file, '[handler:x]\nfoo = " a "\n'))["handler:x"]["foo"] == " a "


def test_names_keep_their_case(file: Path) -> None:
    assert read(write(file, "[handler:x]\nFoo = 1\n"))["handler:x"] == {"Foo": "1"}


def test_a_behavior_may_stand_on_several_lines(file: Path) -> None:
    path = write(file, "[vaurien]\nbehavior =\n    20:delay\n    0.5:error\n")
    assert resolved(path)["behavior"] == "20:delay,0.5:error"


def test_lines_of_a_list_keep_their_text(file: Path) -> None:
    path = write(file, "[handler:x]\nfoo =\n    007\n    1.10\n    true\n")
    assert read(path)["handler:x"]["foo"] == "007,1.10,true"


# ${...}


def test_a_variable_of_the_environment_is_put_in(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_HOST", "redis.example")
    path = write(file, "[vaurien]\ndistant = ${REDIS_HOST}:6379\n")
    assert resolved(path)["distant"] == "redis.example:6379"


def test_a_dollar_in_the_environment_stays_one(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD", "pa$$word${x}")
    assert read(write(file, "[handler:x]\nfoo = ${PASSWORD}\n"))["handler:x"] == {
        "foo": "pa$$word${x}"
    }


def test_two_dollars_stand_for_one(file: Path) -> None:
    assert read(write(file, "[handler:x]\nfoo = $${x}\n"))["handler:x"] == {"foo": "${x}"}


def test_a_variable_of_default_is_put_in_and_is_no_setting(file: Path) -> None:
    path = write(file, "[DEFAULT]\nhost = ::1\n\n[vaurien]\nlocal = [${host}]:1\n")
    assert read(path) == {"vaurien": {"local": "[::1]:1"}}


def test_another_option_is_put_in(file: Path) -> None:
    path = write(file, "[vaurien]\nlog-level = error\nlog-output = ${log-level}\n")
    assert resolved(path)["log-output"] == "error"


def test_an_option_of_another_section_is_put_in(file: Path) -> None:
    path = write(file, "[vaurien]\nlocal = a:1\n[handler:x]\nfoo = ${vaurien:local}\n")
    assert read(path)["handler:x"] == {"foo": "a:1"}


def test_here_is_the_files_directory(file: Path) -> None:
    path = write(file, "[vaurien]\nlocal = unix:${HERE}/x.sock\n")
    assert resolved(path)["local"] == f"unix:{file.parent}/x.sock"


def test_here_is_a_dot_for_a_file_of_the_working_directory(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(file, "[vaurien]\nlocal = unix:${HERE}/x.sock\n")
    monkeypatch.chdir(file.parent)
    assert resolved(file.name)["local"] == "unix:./x.sock"


def test_a_name_that_stands_for_nothing_is_told_by_section_and_option(file: Path) -> None:
    sentence = refused(write(file, "[vaurien]\ndistant = ${NO_SUCH_HOST}:1\n"))
    assert "[vaurien] distant" in sentence
    assert "${NO_SUCH_HOST}" in sentence


def test_a_value_before_any_section_is_refused_with_the_way_out(file: Path) -> None:
    sentence = refused(write(file, "local = 127.0.0.1:0\n"))
    assert "line 1: 'local = 127.0.0.1:0'" in sentence
    assert "; write [vaurien] above it" in sentence


@pytest.mark.parametrize("text", ["$", "a$b", "${", "${a", "$$$", "${a:b:c:d}"])
def test_a_dollar_that_stands_for_nothing_is_told_by_section_and_option(
    text: str, file: Path
) -> None:
    assert "[handler:delay] sleep" in refused(write(file, f"[handler:delay]\nsleep = {text}\n"))


def test_options_that_stand_for_each_other_are_refused(file: Path) -> None:
    assert "[vaurien] " in refused(write(file, "[vaurien]\nlocal=${distant}\ndistant=${local}\n"))


# extends, overrides


def test_what_is_extended_gives_what_is_not_said_here(tmp_path: Path, file: Path) -> None:
    write(
        tmp_path / "base.ini", "[vaurien]\ntimeout = 1\nbacklog = 1\n[handler:delay]\nsleep = 3\n"
    )
    found = resolved(write(file, "[DEFAULT]\nextends = base.ini\n[vaurien]\ntimeout = 2\n"))
    assert found["timeout"] == 2
    assert found["backlog"] == 1
    assert found.catalog.specifications["delay"].options["sleep"] == 3


def test_what_is_extended_is_relative_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "etc/shared/base.ini", "[DEFAULT]\nextends = more.ini\n")
    write(tmp_path / "etc/shared/more.ini", "[vaurien]\ntimeout = 7\n")
    write(tmp_path / "etc/vaurien.ini", "[DEFAULT]\nextends = shared/base.ini\n")
    monkeypatch.chdir(tmp_path)
    assert resolved("etc/vaurien.ini")["timeout"] == 7


def test_an_absolute_path_is_extended_as_it_is(tmp_path: Path, file: Path) -> None:
    base = write(tmp_path / "elsewhere/base.ini", "[vaurien]\ntimeout = 7\n")
    assert resolved(write(file, f"[DEFAULT]\nextends = {base}\n"))["timeout"] == 7


def test_several_files_are_extended(tmp_path: Path, file: Path) -> None:
    write(tmp_path / "a.ini", "[vaurien]\ntimeout = 1\n")
    write(tmp_path / "b.ini", "[vaurien]\ntimeout = 2\nbacklog = 2\n")
    found = resolved(write(file, "[DEFAULT]\nextends =\n    a.ini\n    b.ini\n[vaurien]\nseed=9\n"))
    assert (found["timeout"], found["backlog"], found["seed"]) == (1, 2, 9)


def test_a_file_may_be_extended_by_two_ways(tmp_path: Path, file: Path) -> None:
    write(tmp_path / "base.ini", "[vaurien]\ntimeout = 7\n")
    for name in ("a", "b"):
        write(tmp_path / f"{name}.ini", "[DEFAULT]\nextends = base.ini\n")
    assert resolved(write(file, "[DEFAULT]\nextends =\n  a.ini\n  b.ini\n"))["timeout"] == 7


def test_what_overrides_beats_the_file(tmp_path: Path, file: Path) -> None:
    write(tmp_path / "local.ini", "[vaurien]\ntimeout = 9\n")
    path = write(file, "[DEFAULT]\noverrides = local.ini\n[vaurien]\ntimeout = 2\nbacklog = 2\n")
    found = resolved(path)
    assert (found["timeout"], found["backlog"]) == (9, 2)


def test_an_extended_list_stays_a_list(tmp_path: Path, file: Path) -> None:
    write(tmp_path / "base.ini", "[vaurien]\nbehavior =\n    20:delay\n    5:error\n")
    path = write(file, "[DEFAULT]\nextends = base.ini\n")
    assert resolved(path)["behavior"] == "20:delay,5:error"


def test_extended_text_stays_text(tmp_path: Path, file: Path) -> None:
    write(tmp_path / "base.ini", "[handler:x]\na = 007\nb = 1.10\nc = true\nd = $${x}\n")
    assert read(write(file, "[DEFAULT]\nextends = base.ini\n")) == {
        "handler:x": {"a": "007", "b": "1.10", "c": "true", "d": "${x}"}
    }


def test_here_in_an_extended_file_is_its_own_directory(tmp_path: Path, file: Path) -> None:
    write(tmp_path / "shared/base.ini", "[vaurien]\nlocal = unix:${HERE}/x.sock\n")
    path = write(file, "[DEFAULT]\nextends = shared/base.ini\n")
    assert resolved(path)["local"] == f"unix:{tmp_path}/shared/x.sock"


def test_a_variable_of_an_extended_default_is_put_in(tmp_path: Path, file: Path) -> None:
    write(tmp_path / "base.ini", "[DEFAULT]\nport = 81\n[vaurien]\ndistant = a:${port}\n")
    path = write(file, "[DEFAULT]\nextends = base.ini\n[vaurien]\nlocal = b:${port}\n")
    assert read(path) == {"vaurien": {"local": "b:81", "distant": "a:81"}}


def test_a_variable_of_default_beats_the_extended_one(tmp_path: Path, file: Path) -> None:
    write(tmp_path / "base.ini", "[DEFAULT]\nport = 81\n[vaurien]\ndistant = a:${port}\n")
    path = write(file, "[DEFAULT]\nextends = base.ini\nport = 82\n")
    assert resolved(path)["distant"] == "a:82"


@pytest.mark.parametrize("word", ["extends", "overrides"])
def test_a_missing_extended_file_is_told_by_its_option(word: str, file: Path) -> None:
    sentence = refused(write(file, f"[DEFAULT]\n{word} = no-such.ini\n"))
    assert f"[DEFAULT] {word}" in sentence
    assert "no-such.ini" in sentence


@pytest.mark.parametrize("word", ["extends", "overrides"])
def test_a_file_that_extends_itself_is_refused(word: str, file: Path) -> None:
    assert f"[DEFAULT] {word}" in refused(write(file, f"[DEFAULT]\n{word} = {file.name}\n"))


def test_files_that_extend_each_other_are_refused(tmp_path: Path, file: Path) -> None:
    other = write(tmp_path / "b.ini", f"[DEFAULT]\nextends = {file.name}\n")
    write(file, "[DEFAULT]\nextends = b.ini\n")
    with pytest.raises(UsageError, match=r"\[DEFAULT\] extends") as caught:
        ini.read(str(file))
    assert other in str(caught.value)


def test_what_is_wrong_in_an_extended_file_is_told_by_that_file(tmp_path: Path, file: Path) -> None:
    base = write(tmp_path / "base.ini", "[vaurien]\ntimeout\n")
    write(file, "[DEFAULT]\nextends = base.ini\n")
    with pytest.raises(UsageError, match="line 2") as caught:
        ini.read(str(file))
    assert base in str(caught.value)


def test_a_wrong_value_of_an_extended_file_is_told_by_that_file(tmp_path: Path, file: Path) -> None:
    base = write(tmp_path / "base.ini", "[vaurien]\ntimeout = soon\n")
    write(file, "[DEFAULT]\nextends = base.ini\n")
    with pytest.raises(UsageError, match=r"\[vaurien\] timeout") as caught:
        resolved(str(file))
    assert base in str(caught.value)


# What is wrong


def test_a_missing_file_is_refused(file: Path) -> None:
    sentence = refused(str(file))
    assert "No such file" in sentence


def test_a_directory_is_refused(tmp_path: Path) -> None:
    refused(str(tmp_path))


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(UsageError, match="''"):
        resolved("")


def test_a_file_that_is_not_utf8_is_refused(file: Path) -> None:
    file.write_bytes(b"[vaurien]\nlocal = caf\xe9:1\n")
    assert "UTF-8" in refused(str(file))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("local = a:1\n", ["line 1", "local = a:1", "write [vaurien] above it"]),
        ("[vaurien]\nlocal\n", ["line 2", "local"]),
        ("[vaurien]\nlocal = a:1\nlocal = b:1\n", ["line 3", "[vaurien]", "local"]),
        ("[vaurien]\nseed = 1\n[vaurien]\nbacklog = 1\n", ["line 3", "[vaurien]"]),
        ("[vaurien]\n= 1\n", ["line 2"]),
        ("[vaurien\nlocal = a:1\n", ["line 1"]),
        ("[vaurein]\nlocal = a:1\n", ["[vaurein]", "'vaurien'"]),
        ("[Vaurien]\nlocal = a:1\n", ["[Vaurien]", "'vaurien'"]),
        ("[handlers:delay]\nsleep = 1\n", ["[handlers:delay]", "handler:"]),
        ("[handler]\nsleep = 1\n", ["[handler]", "handler:NAME"]),
        ("[handler:]\nsleep = 1\n", ["[handler:]", "handler:NAME"]),
        ("[delay]\nsleep = 1\n", ["[delay]", "handler:NAME"]),
        ("[vaurein]\n", ["[vaurein]", "'vaurien'"]),
        ("[handler:mine]\n", ["[handler:mine]", "callable"]),
        ("[handler:dleay]\nsleep = 1\n", ["[handler:dleay]", "'delay'"]),
        ("[handler:delay]\nslep = 1\n", ["[handler:delay] slep", "'sleep'"]),
        ("[handler:delay]\nsleep = soon\n", ["[handler:delay] sleep", "'soon'"]),
        ("[handler:delay]\nsleep =\n", ["[handler:delay] sleep", "''"]),
        (
            "[handler:mine]\ncallable = no.such.Class\n",
            ["[handler:mine] callable", "no.such.Class"],
        ),
        ("[handler:mine]\ncallable =\n", ["[handler:mine] callable", "''"]),
        ("[handler:mine]\ncalable = a.B\n", ["[handler:mine]", "callable"]),
        ("[vaurien]\nbehaviour = 20:delay\n", ["[vaurien] behaviour", "'behavior'"]),
        ("[vaurien]\nLocal = a:1\n", ["[vaurien] Local", "'local'"]),
        ("[vaurien]\ntimeout = soon\n", ["[vaurien] timeout", "'soon'"]),
        ("[vaurien]\ntimeout = 3 # s\n", ["[vaurien] timeout", "'3 # s'"]),
        ("[vaurien]\ntimeout =\n", ["[vaurien] timeout", "''"]),
        ("[vaurien]\nlocal = nowhere\n", ["[vaurien] local", "'nowhere'"]),
        ("[vaurien]\ndistant = a:0\n", ["[vaurien] distant", "'a:0'"]),
        ("[vaurien]\nbehavior = 20:dleay\n", ["[vaurien] behavior", "'dleay'", "'delay'"]),
        ("[vaurien]\nbehavior = 120:delay\n", ["[vaurien] behavior", "120"]),
        ("[vaurien]\nbehavior = 20:no.such.Class\n", ["[vaurien] behavior", "no.such.Class"]),
        ("[vaurien]\nlog-level = loud\n", ["[vaurien] log-level", "'loud'"]),
        ("[vaurien]\nconfig = other.ini\n", ["[vaurien] config"]),
        ("[DEFAULT]\nextend = base.ini\n", ["[DEFAULT]", "extend", "'extends'"]),
    ],
)
def test_what_is_wrong_is_told_by_file_section_and_option(
    text: str, words: list[str], file: Path
) -> None:
    sentence = refused(write(file, text))
    for word in words:
        assert word in sentence


LINES = st.sampled_from(
    [
        "[vaurien]",
        "[handler:delay]",
        "[handler:x]",
        "[DEFAULT]",
        "[",
        "extends = vaurien.ini",
        "overrides = nowhere.ini",
        "local = a:1",
        "sleep = 1",
        "sleep = ${sleep}",
        "callable = os.path",
        "callable = vaurien.handlers.delay.Delay",
        "    5:error",
        "    ${HERE}",
        "behavior =",
        "; x",
        "# x",
        "= 1",
        "",
    ]
)


@given(text=st.one_of(st.lists(LINES, max_size=8).map("\n".join), st.text()))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file_is_read_or_refused_with_its_name(text: str, file: Path) -> None:
    path = write(file, text)
    try:
        resolved(path)
    except UsageError as error:
        sentence = str(error)
    else:
        sentence = path
    assert path in sentence
    assert "\n" not in sentence
