"""Each difference from Toxiproxy stands in the docs' table, and each row of that has its test.

The recordings have what differs in answers: a step names why (`tests.wire.scripts`), or a function
of `tests.wire.differences` does. What else differs, in time and in bytes, has tests of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from tests.control.helpers import Api
from tests.support import Backend
from tests.wire.differences import DIFFERENCES
from tests.wire.scripts import SCRIPTS

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

#: How a row begins: the differences of the recordings, as they begin, and the tests that show it.
LISTED: Mapping[str, tuple[str, ...]] = {
    "An unknown field or attribute, a negative time": ("an unknown field or attribute",),
    "toxics in /populate and in a configuration file": ("toxics in populate are applied",),
    "toxics in a change of a proxy say nothing": ("tests/wire/proxy_update.json",),
    "/populate checks its whole list": (
        "tests/control/test_toxiproxy.py::test_a_wrong_toxic_in_populate_is_refused_before"
        "_anything_is_made",
        "tests/control/test_toxiproxy.py::test_a_proxy_that_populate_cannot_replace_stays",
    ),
    "In /populate, port 0 matches": ("in populate, port 0 matches",),
    "Without listen a proxy listens on loopback": (
        "tests/wire/test_listed.py::test_where_a_proxy_listens_that_does_not_say",
    ),
    "listen and upstream cannot be unix sockets": (
        "tests/control/test_safety.py::test_files_that_are_there_are_safe_from_unix_addresses"
        "_of_requests",
    ),
    "Errors are application/json": ("errors are application/json", "an unknown path"),
    "/metrics is always there": ("tests/control/test_toxiproxy.py::test_metrics_are_always_there",),
    "bandwidth without a rate has no limit": (
        "tests/control/test_toxiproxy.py::test_a_toxic_whose_attributes_are_0_harms_nobody"
        "_but_its_proxy",
    ),
    "timeout counts from when it comes": (
        "tests/handlers/test_flow_ends.py::test_a_timeout_fires_though_data_flows_and_passes"
        "_none_of_it",
        "tests/handlers/test_flow_ends.py::test_a_timeout_of_0_drops_all_and_never_closes",
    ),
    "reset_peer on a connection that was open before": (
        "tests/rivals/test_rivals.py::test_r6_reset_peer_added_to_an_open_connection_sends_a_rst",
    ),
    "While reset_peer waits": (
        "tests/handlers/test_flow_ends.py::test_a_removed_reset_peer_resets_at_once_where_data"
        "_is_gone",
        "tests/handlers/test_flow_ends.py::test_an_update_of_reset_peer_starts_its_time_anew",
    ),
    "Only reset_peer itself resets": (
        "tests/rivals/test_rivals.py::test_r5_toxicity_0_does_nothing_at_all",
    ),
    "latency delays an end of the stream": (
        "tests/handlers/test_flow_latency.py::test_each_piece_and_the_end_are_delayed_from"
        "_their_arrival",
    ),
    "When limit_data has let its bytes through": (
        "tests/control/test_toxiproxy.py::test_who_sends_more_than_limit_data_lets_through_is_not"
        "_reset",
    ),
    "slicer draws sizes": (
        "tests/handlers/test_flow_rates.py::test_the_size_of_a_piece_is_uniform",
        "tests/handlers/test_flow_rates.py::test_data_is_cut_into_pieces_with_a_delay_between_them",
    ),
    "bandwidth sends pieces of 10 ms": (
        "tests/handlers/test_flow_rates.py::test_no_piece_is_more_than_10_ms_of_the_line_and_no"
        "_byte_is_early_or_late",
    ),
    "When one side half-closes": (
        "tests/laws/test_law04_half_close.py::test_the_reply_to_a_client_that_half_closed_arrives"
        "_whole",
    ),
    "toxicity is drawn once": (
        "tests/rivals/test_rivals.py::test_r8_adding_changing_and_removing_a_toxic_redraws_no"
        "_other_toxics_dice",
    ),
    "A stream among the attributes": ("a stream among the attributes",),
    "In a change, an empty listen or upstream": ("an empty address in a change",),
    "listen and upstream have the number of a port": (
        "tests/wire/test_listed.py::test_a_port_has_a_number",
    ),
    "A proxy at 0.0.0.0 has the IPv4 addresses": ("a proxy at 0.0.0.0",),
    "A change of listen to the port 0": ("a change to the port 0",),
    "A number may have a fraction": ("a number may have a fraction",),
    "null and then an object for attributes": ("null and then an object",),
    "A proxy has no Logger": ("a proxy has no field Logger",),
    "/populate of nothing answers": ("populate answers an empty list",),
    "/version has the version of Vaurien": (
        "tests/control/test_toxiproxy.py::test_the_version_is_one_that_any_parser_of_versions"
        "_takes",
    ),
    "A proxy has 200 toxics at most": (
        "tests/control/test_large_bodies.py::test_more_toxics_than_a_proxy_can_have_are_refused",
        "tests/control/test_large_bodies.py::test_a_list_of_too_many_proxies_is_refused",
    ),
    "What is wrong in a body": ("what is wrong with a body",),
    "After invalid toxic type": ("an invalid toxic type", "after address already in use"),
    "/ is there": ("/ says what this is",),
    "Requests by a name that is not this machine's": (
        "tests/control/test_safety.py::test_only_names_of_this_machine_are_answered",
    ),
}


def rows() -> list[str]:
    """The first cells of the table in the docs, without its head and without markup."""
    page = (ROOT / "docs" / "toxiproxy.rst").read_text(encoding="utf-8")
    table = page.partition("What differs on purpose\n---")[2].partition("\n---")[0]
    cells = re.findall(r"^   \* - (.+(?:\n       .+)*)\n     - ", table, re.MULTILINE)
    return [re.sub(r"\s+", " ", cell.replace("``", "")) for cell in cells][1:]


def differences() -> set[str]:
    """All that is given as a reason why an answer differs."""
    steps = {step.why for script in SCRIPTS.values() for step in script if step.vaurien}
    return {*DIFFERENCES, *steps}


def test_each_row_of_the_docs_has_its_test_and_each_test_its_row() -> None:
    for row in rows():
        found = [begin for begin in LISTED if row.startswith(begin)]
        assert len(found) == 1, f"{found} of LISTED stand for the row {row!r}"
    for begin in LISTED:
        assert any(row.startswith(begin) for row in rows()), f"there is no row {begin!r}"


def test_each_difference_that_a_recording_has_stands_in_the_docs() -> None:
    known = [shown for one in LISTED.values() for shown in one]
    for difference in differences():
        assert any(difference.startswith(one) for one in known), f"unlisted: {difference!r}"


def test_what_shows_a_difference_is_there() -> None:
    for shown in (shown for one in LISTED.values() for shown in one):
        if not shown.startswith("tests/"):
            assert any(one.startswith(shown) for one in differences()), shown
            continue
        path, _, name = shown.partition("::")
        assert (ROOT / path).exists(), shown
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8") or not name, shown


def test_each_difference_is_in_a_recording() -> None:
    recorded = {
        difference
        for path in HERE.glob("*.json")
        for difference in json.loads(path.read_text(encoding="utf-8"))["differences"]
    }
    assert recorded == differences()


def test_where_a_proxy_listens_that_does_not_say(echo_backend: Backend) -> None:
    with Api() as api:
        body = {"name": "p", "upstream": echo_backend.address}
        listen = api.ask("POST", "/proxies", body, 201)["listen"]
    assert re.fullmatch(r"127\.0\.0\.1:\d+", listen)


def test_a_port_has_a_number(echo_backend: Backend) -> None:
    with Api() as api, api.proxy(echo_backend) as proxy:
        new = {"name": "q", "listen": "127.0.0.1:0", "upstream": echo_backend.address}
        for name in ("listen", "upstream"):
            assert "http" in api.refused("POST", "/proxies", {**new, name: "localhost:http"})
            assert "http" in api.refused("POST", proxy.path, {name: "localhost:http"})
