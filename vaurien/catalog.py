"""What names stand for, once the configuration was read: behaviors, toxics, options of a request.

Law: code that asks on behalf of a user, as the control API does, gets what is configured, and
nothing is imported or opened for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vaurien import registry
from vaurien.behavior import DUMMY, Behavior
from vaurien.configured import Configured
from vaurien.errors import UsageError, nearest
from vaurien.fitting import Handlers, check, check_connect, together
from vaurien.kinds import STREAMS, is_flow
from vaurien.options import Raw, key, number, told
from vaurien.plan import NOTHING, Toxic
from vaurien.specification import Specification, specify


class Catalog(Configured):
    """Answers what a name stands for, with the options that are configured for it."""

    def knows(self, name: str, where: str, meets: bool | None = None) -> str:
        """The name under which `name` is configured; UsageError if it is not there.

        For requests: what other packages have installed may be named, a dotted path that the
        configuration does not name may not. `meets` says whether it is to meet clients; then only
        such as may do so are told of, or only others.
        """
        own = self.canonical(name)
        if own in self.specifications or own in self.presets:
            return own
        if name not in registry.installed():
            hint = "a request names what is configured; " if "." in name else ""
            near = self._nearest(name, meets)
            raise UsageError(f"{where}: there is no handler {name!r}; {hint}{near}")
        own = self.get(name, where)
        self.specifications[own] = specify(own, self.classes[own], {})
        return own

    def stands_for(
        self, name: str, options: Mapping[str, Raw] | None = None
    ) -> Specification | tuple[Specification, ...]:
        """What `name` in a behavior is, with `options` in place of those that are configured."""
        own = self.canonical(name)
        if options:
            keys = self._by_key(own, options)
            return self.specifications[own].with_options(keys)
        return self.presets[own].specifications if own in self.presets else self.specifications[own]

    def choose(
        self,
        behavior: Behavior,
        on_connect: Behavior = NOTHING,
        where: str = "behavior",
        meeting: str = "on_connect",
        options: Mapping[str, Mapping[str, Raw]] | None = None,
    ) -> Handlers:
        """The handlers for two behaviors asked for by a request, checked.

        `where` and `meeting` are what they are called; `options` are by handler. UsageError for
        what is not there or does not fit.
        """
        options = options or {}
        wheres = dict.fromkeys(behavior.names, where)
        for name in on_connect.names:
            wheres.setdefault(name, meeting)
        wheres.pop(DUMMY, None)
        if DUMMY in options:
            self.stands_for(DUMMY, options[DUMMY])
        if idle := [name for name in options if name not in wheres]:
            place = where if behavior.parts else meeting
            raise UsageError(f"handlers.{idle[0]}: {place} does not pick it; leave it out")
        handlers = {}
        for name, place in wheres.items():
            own = self.knows(name, place, meets=place == meeting)
            raws = options.get(name, {})
            self.check_values(own, raws)
            handlers[name] = self.stands_for(name, raws)
        stand = together(handlers)
        check(behavior, stand, where)
        check_connect(on_connect, stand, meeting)
        return handlers

    def toxic(
        self,
        kind: str,
        name: str = "",
        stream: str = "",
        toxicity: float = 1.0,
        options: Mapping[str, Raw] | None = None,
        where: str = "toxic",
        base: Specification | None = None,
    ) -> Toxic:
        """A toxic of the type `kind`, which is any flow handler that is configured.

        `stream` in any case, the class's own if not given; `name` is ``TYPE_STREAM`` if not given.
        Options that are not given are those of `base`, or those that are configured for the type.
        """
        own = self.knows(kind, where)
        cls = self.classes.get(own)
        if cls is None or not is_flow(cls):
            flows = [n for n, c in self.classes.items() if is_flow(c)]
            raise UsageError(
                f"{where}: {kind!r} is not a flow handler; {nearest(kind, flows, 'toxics')}"
            )
        options = dict(options or {})
        raws = self._by_key(own, options)
        if stream:
            raws["stream"] = Raw(stream.lower(), f"{where}: stream")
        if base is None:  # exact points are for behaviors, whatever is configured
            base = replace(self.specifications[own], given={})
        made = base.with_options(raws)
        if not stream:
            acts = (made.acts(True), made.acts(False))
            stream = "both" if all(acts) else "upstream" if acts[0] else "downstream"
        name = name or f"{kind}_{stream}"
        return Toxic(replace(made, name=name), toxicity, kind, stream)

    def check_values(self, name: str, options: Mapping[str, Raw], by_request: bool = True) -> None:
        """UsageError for values in JSON that cannot be, or that a request may not give.

        Which these are a type's `by_request` says; it is for who is not the configuration.
        """
        cls = self.classes.get(self.canonical(name))
        declared = {} if cls is None else registry.options_of(cls)
        chosen = self._chosen.get(self.canonical(name), {})
        for word, raw in options.items():
            if (own := chosen.get(key(word))) is not None and own.value == raw.value:
                continue  # what the configuration says itself: a client puts it back
            if isinstance(raw.value, (list, dict)):
                raise UsageError(
                    f"{raw.where}: {told(raw.value)} is not a plain value; give a text or a number"
                )
            option = declared.get(key(word))
            allowed = getattr(option and option.type, "by_request", None)
            if by_request and allowed is not None and not allowed(raw.value):
                raise UsageError(
                    f"{raw.where}: {raw.value!r} is for the configuration only; a request may not"
                    " name a file: put it there, in a [handler:NAME] section"
                )


def toxics(catalog: Catalog, raw: Raw) -> tuple[Toxic, ...]:
    """The toxics that a configuration writes: ``[NAME:] TYPE [OPTION=VALUE ...]``, by commas.

    ``stream`` and ``toxicity`` (0 to 1) are given like options.
    """
    found: list[Toxic] = []
    for text in (piece.strip() for piece in raw.value.split(",")):
        try:
            found.append(_toxic(catalog, text, raw.where))
        except UsageError as error:
            place = "" if str(error).startswith(raw.where) else f"{raw.where}: "
            raise UsageError(f"{place}{error}") from None
        if any(other.name == found[-1].name for other in found[:-1]):
            raise UsageError(
                f"{raw.where}: two toxics are called {found[-1].name!r}; write NAME: before one"
            )
    return tuple(found)


def _toxic(catalog: Catalog, text: str, where: str) -> Toxic:
    """One toxic as it is written."""
    words = text.split()
    name = words.pop(0)[:-1] if words and words[0].endswith(":") else ""
    pairs = [word.partition("=") for word in words[1:]]
    if not words or "=" in words[0] or not all(option and value for option, _, value in pairs):
        raise UsageError(
            f"{text!r} is not [NAME:] TYPE [OPTION=VALUE ...]; write for instance latency"
            " latency=100 stream=upstream toxicity=0.5"
        )
    options: dict[str, Raw] = {}
    for option, _, value in pairs:
        if key(option) in map(key, options):
            raise UsageError(f"{text!r} gives {option!r} twice; give it once")
        options[option] = Raw(value, f"{where}: {option}")
    stream, share = options.pop("stream", None), options.pop("toxicity", None)
    try:
        toxicity = number(share.value) if share is not None else 1.0
    except ValueError as error:
        raise UsageError(f"toxicity: {share and share.value!r} {error}; give 0 to 1") from None
    direction = str(stream.value) if stream is not None else ""
    if direction and direction.lower() not in STREAMS:
        raise UsageError(
            f"stream: {direction!r} is not a stream; {nearest(direction, STREAMS, 'streams')}"
        )
    return catalog.toxic(words[0], name, direction, toxicity, options, where)
