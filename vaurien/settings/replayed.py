"""What is written to a journal and made again from one: the checks, and the plans of a replay.

Law: in a replay the journal's decisions and its seed win over all that is set, and it is said what
does not count then.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from vaurien.control.replayed import Timed, replayed
from vaurien.errors import UsageError
from vaurien.fitting import check, check_connect, together
from vaurien.observe import journal
from vaurien.plan import Plan
from vaurien.settings.in_force import Settings
from vaurien.settings.table import DEFAULT


def check_journal(settings: Settings) -> None:
    files = [settings["journal"], settings["replay"]]
    if None not in files and os.path.realpath(files[0]) == os.path.realpath(files[1]):
        raise UsageError(
            f"{settings.where('journal')}: {settings['journal']!r} is what is replayed, and two"
            " runs in one journal cannot be; give another file"
        )
    if settings["journal-all"] and settings["journal"] is None:
        raise UsageError(
            f"{settings.where('journal-all')}: there is no journal; give --journal FILE too"
        )


def replay(settings: Settings, plans: Sequence[Plan], where: str, path: str) -> list[Plan]:
    """The plans with the decisions of the journal at `path`; those and its seed win."""
    made, count, missing = [], 0, []
    due: list[Timed] = []
    for plan in plans:
        replay = journal.read(path, where, plan.name, settings.catalog.cls, len(plans) > 1)
        settings.warnings += [one for one in replay.warnings if one not in settings.warnings]
        if replay.seed is None:
            missing.append(plan.name)
        elif plan.name == DEFAULT:
            settings.values["seed"], settings.sources["seed"] = replay.seed, where
        count += len(replay.decisions) + len(replay.connect_decisions)
        stand = together(replay.handlers)
        check(replay.behavior, stand, where)
        check_connect(replay.on_connect, stand, where, replayed=True)
        plan, later, left_out = replayed(plan, replay.operations, settings.catalog.cls)
        due += later
        if left_out:
            settings.warnings.append(
                f"{where}: {plan.name}: what is not done again: {', '.join(sorted(left_out))}"
            )
        made.append(
            replace(
                plan,
                behavior=replay.behavior,
                on_connect=replay.on_connect,
                handlers=replay.handlers,
                seed=plan.seed if replay.seed is None else replay.seed,
                decisions=replay.decisions,
                connect_decisions=replay.connect_decisions,
            )
        )
    if missing and len(plans) > 1:
        if len(missing) == len(plans):
            raise UsageError(f"{where}: {path!r} has nothing of any proxy here; give its journal")
        settings.warnings.append(
            f"{where}: {path} has nothing of {', '.join(missing)}: nothing is harmed there"
        )
    settings.warnings.append(
        f"{where}: the seed and all decisions ({count}) are those of {path}; the weights of"
        " --behavior and --on-connect, and --seed, do not count"
    )
    settings.operations = tuple(sorted(due, key=lambda timed: timed.since))
    return made
