"""Completion of ``vaurienctl`` in bash, zsh and fish.

Law: the shells' scripts only ask ``vaurienctl __complete``; what can stand where is taken from the
parser, and names from the API, which gets half a second. What goes wrong completes nothing. Whoever
may make a proxy chooses its name: a shell inserts it as one word, and never expands it.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from vaurien.client import Client
from vaurien.errors import VaurienError

HIDDEN = "__complete"
PATIENCE = 0.5  # seconds for the API; the user waits for them

BASH = """\
# vaurienctl in bash:  source <(vaurienctl completion bash)
_vaurienctl() {
    mapfile -t COMPREPLY < <(
        "${1/#\\~/$HOME}" __complete bash "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2>/dev/null
    )
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=:] ]] && compopt -o nospace
    return 0
}
complete -F _vaurienctl vaurienctl
"""

ZSH = """\
#compdef vaurienctl
# vaurienctl in zsh:  source <(vaurienctl completion zsh)
_vaurienctl() {
    local -a found open
    found=("${(@f)$("${(Q)words[1]}" __complete zsh "${(@Q)words[2,CURRENT-1]}" \\
        "$QIPREFIX$PREFIX" 2>/dev/null)}")
    found=("${(@)found:#}")
    open=("${(@M)found:#*[=:]}")
    found=("${(@)found:#*[=:]}")
    (( $#open )) && compadd -S '' -- "${open[@]}"
    (( $#found )) && compadd -- "${found[@]}"
    return 0
}
if [[ $funcstack[1] == _vaurienctl ]]; then
    _vaurienctl "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }
    compdef _vaurienctl vaurienctl
fi
"""

FISH = """\
# vaurienctl in fish:  vaurienctl completion fish | source
function __vaurienctl_complete
    set -l words (commandline -opc)
    $words[1] __complete fish $words[2..-1] (commandline -ct) 2>/dev/null
end
complete -c vaurienctl -f -a '(__vaurienctl_complete)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}

#: A candidate and what it is, for the shells that show it.
Candidate = tuple[str, str]


def answer(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> list[str]:
    """The lines for a shell's script; `arguments` are its name and what was typed.

    bash gives the line up to the cursor and the characters at which it splits words, such as ``=``
    and ``:``; it wants only what follows the last of them, quoted. The others give the words, the
    last one as it was typed, and quote themselves.
    """
    shell, *typed = arguments
    if shell == "bash":
        line = _split(typed[0], (typed[1:] or [""])[0] or _BREAKS)
        found = candidates(parser, line.words[1:] or [""])
        return [text for one, _ in found if (text := line.inserted(one)) is not None]
    typed[-1:] = _split(typed[-1]).words[-1:] if typed else [""]
    found = candidates(parser, typed)
    if shell == "fish":
        return [f"{text}\t{_plain(what)}" if what else text for text, what in found]
    return [text for text, _ in found]


def candidates(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[Candidate]:
    """What the last of the words may become, sorted."""
    try:
        found = dict(_Line(parser, words).candidates())
    except (VaurienError, LookupError, TypeError):
        return []
    return sorted((t, what) for t, what in found.items() if _may_follow(words[-1], t))


def _may_follow(typed: str, text: str) -> bool:
    """Whether a word may become `text`; what looks like a flag does only if one is being typed."""
    flag = text.startswith("-") and not typed.startswith("-")
    return text.startswith(typed) and text.isprintable() and not flag


def kind(action: argparse.Action, name: str) -> argparse.Action:
    """Say what an argument is completed with: a method of `_Line`."""
    action.completed_by = name  # type: ignore[attr-defined]
    return action


@dataclass
class _Line:
    """What was typed so far, taken apart."""

    parser: argparse.ArgumentParser
    words: Sequence[str]
    flags: dict[str, str] = field(default_factory=dict)
    positionals: list[str] = field(default_factory=list)

    def candidates(self) -> Iterator[Candidate]:
        """All that may stand there, whatever it begins with."""
        *done, last = self.words
        waiting = None
        parser = self.parser
        for word in done:
            name, equals, value = word.partition("=")
            if waiting is not None:
                self.flags[waiting], waiting = word, None
            elif not word.startswith("-"):
                inner = _subparsers(parser)
                if inner is None:
                    self.positionals.append(word)
                else:
                    parser = inner.choices[word]
            elif equals:
                self.flags[name] = value
            elif _takes_value(_flag(self.parser, parser, name)):
                waiting = name
            else:
                self.flags[name] = ""
        if waiting is not None:
            yield from self._values(_flag(self.parser, parser, waiting))
        elif last.startswith("--") and "=" in last:
            name = last.partition("=")[0]
            for text, what in self._values(_flag(self.parser, parser, name)):
                yield f"{name}={text}", what
        elif last.startswith("-"):
            for action in parser._actions:
                for name in action.option_strings:
                    if name.startswith("--") and name not in self.flags:
                        yield name, _plain(action.help)
        elif (inner := _subparsers(parser)) is not None:
            for action in inner._choices_actions:
                yield action.dest, _plain(action.help)
        else:
            yield from self._positional(parser)

    def _positional(self, parser: argparse.ArgumentParser) -> Iterator[Candidate]:
        left = len(self.positionals)
        for action in parser._actions:
            if not action.option_strings:
                if left == 0 or action.nargs in ("*", "+"):
                    yield from self._values(action)
                    return
                left -= 1

    def _values(self, action: argparse.Action) -> Iterator[Candidate]:
        if action.choices is not None:
            yield from ((str(choice), "") for choice in action.choices)
        name = getattr(action, "completed_by", None)
        if name is not None:
            yield from getattr(self, name)()

    # What the API knows

    def _client(self) -> Client:
        host, token = self.flags.get("--host"), self.flags.get("--token")
        return Client(host, token=token, timeout=PATIENCE)

    def proxy(self) -> Iterator[Candidate]:
        """Names of proxies, but those that are there already."""
        for state in self._client().proxies():
            if state["name"] not in self.positionals:
                yield state["name"], f"{state['local']} to {state['distant']}"

    def toxic(self) -> Iterator[Candidate]:
        """The toxics of the proxy before."""
        for toxic in self._client().toxics(self.positionals[0]):
            if toxic["name"] not in self.positionals:
                yield toxic["name"], f"{toxic['type']}, {toxic['stream']}"

    def handler(self) -> Iterator[Candidate]:
        """Handlers that deal with exchanges, and presets."""
        yield from self._handlers("flow", "socket")
        for preset in self._client().list_presets():
            yield preset["name"], preset["summary"]

    def toxic_type(self) -> Iterator[Candidate]:
        """Handlers that can be toxics."""
        yield from self._handlers("flow")

    def any_handler(self) -> Iterator[Candidate]:
        """All handlers."""
        yield from self._handlers("flow", "socket", "connect")

    def _handlers(self, *kinds: str) -> Iterator[Candidate]:
        for handler in self._client().list_handlers():
            if handler["kind"] in kinds:
                yield handler["name"], handler["summary"]

    def weighted(self) -> Iterator[Candidate]:
        """The handler or preset that is being written in a choice such as ``20:delay,5:err``."""
        yield from self._weighted(self.words[-1], "flow", "socket")

    def weighted_connect(self) -> Iterator[Candidate]:
        """The same for those that connect."""
        typed = self.words[-1]
        if typed.startswith("--"):
            typed = typed.partition("=")[2]
        yield from self._weighted(typed, "connect")

    def _weighted(self, typed: str, *kinds: str) -> Iterator[Candidate]:
        before = re.match(r".*[:+]", typed)
        if before is None:
            yield "100:", "a share in percent, and its handler"
            return
        client = self._client()
        known = [h for h in client.list_handlers() if h["kind"] in kinds]
        for one in known + (client.list_presets() if "flow" in kinds else []):
            yield before[0] + one["name"], one["summary"]

    def options(self) -> Iterator[Candidate]:
        """``NAME=`` of the options of the handler before, and their choices."""
        yield from self._options(self.positionals[0])

    def attributes(self) -> Iterator[Candidate]:
        """The same for a toxic that is made."""
        yield from self._options(self.positionals[1])

    def toxic_attributes(self) -> Iterator[Candidate]:
        """The same for a toxic that is there."""
        proxy, name = self.positionals[:2]
        types = [t["type"] for t in self._client().toxics(proxy) if t["name"] == name]
        yield from self._options(types[0])

    def _options(self, handler: str) -> Iterator[Candidate]:
        found = [h for h in self._client().list_handlers() if h["name"] == handler]
        given = {word.partition("=")[0] for word in self.positionals if "=" in word}
        for option in found[0]["options"]:
            if option["name"] in given:
                continue
            start = f"{option['name']}="
            if not self.words[-1].startswith(start):
                yield start, option["description"]
                continue
            values = ("yes", "no") if option["type"] == "bool" else option["choices"] or ()
            yield from ((f"{start}{value}", "") for value in values)

    def connection(self) -> Iterator[Candidate]:
        """Numbers of the proxy's connections, and ``all``."""
        yield "all", "each of them"
        if self.positionals:
            for one in self._client().connections(self.positionals[0]):
                yield str(one["number"]), str(one["client"])


def _flag(
    outer: argparse.ArgumentParser, parser: argparse.ArgumentParser, name: str
) -> argparse.Action:
    """The action of a flag; KeyError if there is none."""
    for action in (*parser._actions, *outer._actions):
        if name in action.option_strings:
            return action
    raise KeyError(name)


def _takes_value(action: argparse.Action) -> bool:
    return action.nargs != 0


def _subparsers(parser: argparse.ArgumentParser) -> Any:
    """The commands of a parser, None if it has none."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action
    return None


_BREAKS = "@><=;|&(:"  # as bash has it if nothing else is said


@dataclass
class _Typed:
    """A line that is being typed, without its quotes.

    `quote` is the one that is open; bash replaces the last word from `start` on.
    """

    words: list[str]
    quote: str
    start: int

    def inserted(self, text: str) -> str | None:
        """What bash is to insert for the last word to become `text`; None if it cannot be said."""
        text = text[self.start :]
        if self.quote:
            special = "'" if self.quote == "'" else '"$`\\!'
            return None if any(c in text for c in special) else text
        return re.sub(r"[^\w./:=@%+,-]", r"\\\g<0>", text)  # but for what means itself in a shell


def _split(line: str, breaks: str = "") -> _Typed:
    """The words of a line that is being typed; the last one may be empty, or an open quote."""
    words, word, quote, escaped, inside, start = [], "", "", False, False, 0
    before = 0  # where `start` was when the quote was opened
    for c in line:
        if escaped:
            word, escaped = word + c, False
        elif c == "\\" and quote != "'":
            escaped = inside = True
        elif quote and c == quote:
            quote, start = "", before
        elif quote:
            word += c
        elif c in "'\"":
            quote, inside = c, True
            before, start = start, len(word)
        elif c.isspace():
            if inside:
                words.append(word)
            word, inside, start = "", False, 0
        else:
            word, inside = word + c, True
            start = len(word) if c in breaks else start
    return _Typed([*words, word], quote, start)


def _plain(text: str | None) -> str:
    return " ".join((text or "").replace("%%", "%").replace("``", "").split())
