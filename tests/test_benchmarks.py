"""The benchmarks: what is asked for is measured, and the tables say what came of it."""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from benchmarks import faults, peers, report, rounds, streamer, web
from benchmarks.__main__ import BEGIN, END, MEASURES, README, RESULTS, _chosen, _possible
from benchmarks.measures import Effort, Measure, Metric, Round
from benchmarks.peers import PEERS, ROOT, Fault, Launch, Subject
from benchmarks.processes import Address, RunError, cpu_seconds, free_address, started
from benchmarks.results import Results
from benchmarks.rounds import Plan, able

ABLE = ("toxiproxy", "vaurien")


def results(names: str, *rounds: Round) -> Results:
    """Results of the peers haproxy, toxiproxy and vaurien in some measures."""
    peers = [PEERS[spec] for spec in ("haproxy", *ABLE)]
    return Results({"cores": "2"}, peers, _chosen(names), ["haproxy"], list(rounds))


def launch(tmp_path: Path, api: Address, fault: Fault | None) -> Launch:
    """A launch from port 1 to port 2."""
    local, backend = Address("127.0.0.1", 1), Address("127.0.0.1", 2)
    return Launch(local, backend, tmp_path, {"behavior": "100:dummy"}, api, fault)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("bulk", ["bulk"]),
        ("idle,bulk", ["idle", "bulk"]),
        ("idle,idle", ["idle"]),
        ("fault-latency-*", ["fault-latency-50", "fault-latency-1000"]),
        ("fault-*", list(faults.FAULTS)),
        ("requests,connections", ["requests-1", "requests-50", "connections"]),
        ("latency", ["latency"]),
    ],
)
def test_measures_are_chosen_by_name_and_pattern(asked: str, expected: list[str]) -> None:
    assert [measure.name for measure in _chosen(asked)] == expected


def test_a_measure_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no measure 'blk'; there are"):
        _chosen("bulk,blk")


@pytest.mark.parametrize("measure", MEASURES.values(), ids=list(MEASURES))
def test_faults_are_measured_for_those_that_have_them(measure: Measure) -> None:
    specs = {peer.spec for peer in able(measure, list(PEERS.values()))}
    wanted = {spec for spec in ABLE if measure.name not in PEERS[spec].skips}
    assert specs == wanted if measure.faulty else specs >= {"haproxy", "vaurien"}


def test_no_two_measures_share_a_metric() -> None:
    keys = [metric.key for measure in MEASURES.values() for metric in measure.metrics]
    assert len(keys) == len(set(keys))


def test_vaurien_gets_a_fault_in_place_of_its_behavior(tmp_path: Path) -> None:
    command = PEERS["vaurien"].command
    assert command is not None
    argv = command(
        launch(tmp_path, Address("127.0.0.1", 3), Fault("latency", {"latency": 20}, "5"))
    )
    assert "--behavior=5:latency" in argv
    assert "--handlers.latency.latency=20" in argv
    assert "--behavior=100:dummy" not in argv


def test_flags_of_a_setup_replace_those_of_the_peer(tmp_path: Path) -> None:
    command = PEERS["vaurien"].command
    assert command is not None
    asked = launch(tmp_path, Address("127.0.0.1", 3), None)
    assert "--log-level=warning" in command(asked)
    argv = command(replace(asked, flags={"log-level": None, "journal": "{scratch}/journal"}))
    assert not [flag for flag in argv if flag.startswith("--log-level")]
    assert f"--journal={tmp_path}/journal" in argv


def test_the_version_before_is_run_from_its_checkout(tmp_path: Path) -> None:
    package = tmp_path / "vaurien"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("print('vaurien 0.1 of before')")
    assert peers.version(peers.before(tmp_path)) == "vaurien 0.1 of before"


def test_an_nginx_without_its_stream_module_is_no_peer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nginx = tmp_path / "nginx"
    built = f"--modules-path={tmp_path} --with-stream_ssl_module --with-stream=dynamic"
    nginx.write_text(f"#!/bin/sh\necho nginx/1.0 {built} >&2\n")
    nginx.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(RunError, match="no stream module"):
        peers.version(PEERS["nginx"])
    (tmp_path / "ngx_stream_module.so").touch()
    assert peers.version(PEERS["nginx"]).startswith("nginx/1.0")


def test_a_directory_without_vaurien_is_no_version_before(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a checkout of Vaurien"):
        peers.before(tmp_path)


def test_results_do_not_name_the_place_of_the_version_before() -> None:
    before = peers.before(ROOT)
    found = Results({}, [before], _chosen("bulk"), [before.spec])
    assert found.as_json()["peers"] == {"before": {"label": "before", "behavior": "100:dummy"}}


def test_measures_whose_tools_are_missing_are_left_out_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    left = _possible(_chosen("wrk-plain,wrk-delay,fault-stored"))
    assert [measure.name for measure in left] == ["fault-stored"]
    said = "wrk-plain, wrk-delay: left out, not on PATH: nginx, wrk"
    assert capsys.readouterr().err == f"{said} (apt-get install nginx-light wrk)\n"


def test_cpu_time_is_counted_finer_than_in_ticks() -> None:
    ended = sum(os.times()[2:4])
    before = time.process_time()
    taken = [cpu_seconds(os.getpid()) for _ in range(5)]
    assert before <= taken[0] - ended <= taken[-1] - ended <= time.process_time()
    ticks = 1_000_000 // os.sysconf("SC_CLK_TCK")
    assert len({round(each * 1e6) % ticks for each in taken}) > 1


DIRECT, OTHER = PEERS["direct"], replace(PEERS["direct"], spec="other", label="other")


def rounds_of(take: Callable[[Sequence[Subject], Effort], dict[str, float]], plan: Plan) -> Results:
    """The results of a measure `m` of two peers that are no processes."""
    measure = Measure("m", "streamer", take, (Metric("m", "m", "1/s", higher=True),), rounds=1)
    found = Results({}, [DIRECT, OTHER], [measure], ["other"])
    rounds.run(found, plan)
    return found


def test_each_turn_counts_as_a_round_in_which_each_peer_is_measured() -> None:
    count = itertools.count(1)
    found = rounds_of(lambda *_: {"m": float(next(count))}, Plan(2, turns=3, sparing=False))
    made = [{spec: values["m"] for spec, values in each.items()} for each in found.rounds]
    assert [set(each) for each in made] == [{"direct", "other"}] * 6
    assert [sorted(each.values()) for each in made] == [[n, n + 1] for n in range(1, 12, 2)]


def test_a_sparing_run_makes_a_measure_in_as_many_rounds_as_it_needs() -> None:
    found = rounds_of(lambda *_: {"m": 1.0}, Plan(2))
    assert [len(each) for each in found.rounds] == [2, 0]


def test_a_peer_that_fails_spoils_no_other() -> None:
    def take(subjects: Sequence[Subject], _: Effort) -> dict[str, float]:
        if subjects[0].peer is OTHER:
            raise RunError("broken")
        return {"m": 1.0}

    found = rounds_of(take, Plan(1))
    assert found.rounds == [{"direct": {"m": 1.0}}]
    assert found.failures == ["round 1, m, other: broken"]


WRK = """Running 1s test @ http://127.0.0.1:18002/
  1 threads and 50 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.42ms    1.72ms  12.32ms   59.52%
    Req/Sec    20.81k     4.52k   25.54k    63.64%
  22769 requests in 1.10s, 3.28MB read
Requests/sec:  20699.42
Transfer/sec:      2.98MB
"""


def test_what_wrk_says_is_read() -> None:
    assert web.parse(WRK) == (22769, 20699.42)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (WRK + "  Non-2xx or 3xx responses: 7\n", "Non-2xx or 3xx responses: 7"),
        (WRK + "  Socket errors: connect 0, read 1, write 0, timeout 0\n", "read 1"),
        (WRK.replace("22769", "0"), "0 requests in"),
        ("unable to connect", "unable to connect"),
    ],
)
def test_a_load_that_went_wrong_is_an_error(said: str, told: str) -> None:
    with pytest.raises(RunError, match=told):
        web.parse(said)


def test_what_a_log_costs_is_told_beside_the_same_without_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    journal = tmp_path / web.JOURNAL
    rates = {"default": 450.0, "quiet": 500.0, "journal": 300.0, "plain": 900.0}
    clock = [0.0]

    def wrk(address: Address, *_: int) -> tuple[int, float]:
        rate = rates[address.host]
        clock[0] += 100 / rate  # 100 requests, and all of the time is the proxy's
        if address.host == "journal":
            with journal.open("a") as lines:
                lines.write("{}\n" * 90)
        return 100, rate

    journal.write_text("{}\n" * 5)  # of a turn before
    monkeypatch.setattr(web, "wrk", wrk)
    monkeypatch.setattr(web, "cpu_seconds", lambda _: clock[0])
    setups = web.WEB["wrk-latency"].setups
    subjects = [
        Subject(PEERS["vaurien"], Address(each.key, 1), Address("", 2), 1, None, each, tmp_path)
        for each in setups
    ]
    values = web.load("wrk-latency", 50, 1, subjects, Effort())
    assert set(values) == {metric.key for metric in web.WEB["wrk-latency"].metrics}
    assert values["wrk-latency-part"] == pytest.approx(0.9)
    assert values["wrk-latency-journal-part"] == pytest.approx(0.6)
    assert values["wrk-latency-lacking"] == pytest.approx(10)
    assert values["wrk-latency-plain-part"] == pytest.approx(0.5)
    assert values["wrk-latency-plain-cpu-part"] == pytest.approx(2)


@pytest.mark.parametrize("measure", web.WEB.values(), ids=list(web.WEB))
def test_faults_over_http_run_as_users_have_them(measure: Measure) -> None:
    default, quiet, journal, *_ = measure.setups
    assert default.flags == {"log-level": None}
    assert quiet.flags == {}
    assert journal.flags.keys() == {"log-level", "journal"}


def test_the_own_handler_passes_all_on(streaming: Address, tmp_path: Path) -> None:
    setup = web.WEB["wrk-handler"].setups[0]
    with peers.running(PEERS["vaurien"], streaming, tmp_path, setup) as subject:
        assert faults.transfer(subject.address, 3_000_001) > 0
    assert "passing_on" in (tmp_path / "peer.log").read_text()


def test_uncertainty_does_not_grow_with_outliers() -> None:
    rounds = [{"vaurien": {"bulk-to": value}} for value in (98.0, 99.0, 100.0, 101.0, 500.0)]
    assert "100 ±1%" in report.terminal(results("bulk", *rounds))


class Api(BaseHTTPRequestHandler):
    """Toxiproxy's API, as far as a toxic is added; `says` is what it makes of it."""

    asked: ClassVar[list[tuple[str, Any]]] = []
    says: ClassVar[dict[str, Any]] = {}

    def do_POST(self) -> None:
        """Answer with the toxic that is asked for and what `says` changes of it."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((self.path, asked))
        body = json.dumps({"stream": "downstream", **asked, **self.says}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def api() -> Iterator[Address]:
    """The address of an API."""
    Api.asked, Api.says = [], {}
    with HTTPServer(("127.0.0.1", 0), Api) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield Address("127.0.0.1", server.server_port)
        server.shutdown()
        thread.join()


def test_toxiproxy_gets_a_fault_as_a_toxic(tmp_path: Path, api: Address) -> None:
    inject = PEERS["toxiproxy"].inject
    assert inject is not None
    inject(launch(tmp_path, api, Fault("bandwidth", {"rate": 10}, "50")))
    toxic = {"type": "bandwidth", "attributes": {"rate": 10}, "toxicity": 0.5}
    assert Api.asked == [("/proxies/bench/toxics", toxic)]


@pytest.mark.parametrize("says", [{"attributes": {"rate": 0}}, {"stream": "upstream"}])
def test_a_toxic_other_than_asked_for_is_an_error(
    tmp_path: Path, api: Address, says: dict[str, Any]
) -> None:
    Api.says = says
    inject = PEERS["toxiproxy"].inject
    assert inject is not None
    with pytest.raises(RunError, match="was asked for"):
        inject(launch(tmp_path, api, Fault("bandwidth", {"rate": 10})))


@pytest.fixture
def streaming(tmp_path: Path) -> Iterator[Address]:
    """The address of a streamer."""
    address = free_address()
    argv = [sys.executable, "-m", "benchmarks.streamer", address.host, str(address.port)]
    with started(argv, [address], tmp_path / "log", ROOT):
        yield address


@pytest.mark.parametrize("count", [1, 3_000_001])
def test_the_streamer_sends_what_it_is_asked_for_and_ends(streaming: Address, count: int) -> None:
    with socket.create_connection(streaming, timeout=10) as sock:
        streamer.ask(sock, count)
        assert sum(iter(lambda: len(sock.recv(1 << 16)), 0)) == count


def test_a_transfer_that_ends_early_is_an_error() -> None:
    def cut(listener: socket.socket) -> None:
        sock, _ = listener.accept()
        with sock:
            sock.recv(8)
            sock.sendall(bytes(10))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=cut, args=(listener,))
        thread.start()
        with pytest.raises(RunError, match="a stream of 100 bytes ended 90 early"):
            faults.transfer(Address(*listener.getsockname()), 100)
        thread.join()


def test_opening_connections_is_no_part_of_a_steady_load(monkeypatch: pytest.MonkeyPatch) -> None:
    # 0.5 s and 0.1 s of CPU to connect, then 1,000 requests/s at 100 µs of CPU
    def load(*asked: Any) -> faults.Load:
        count = asked[-1]
        return faults.Load(count, 0.5 + count / 1000, 0.1 + count * 100e-6)

    monkeypatch.setattr(faults, "load", load)
    subject = Subject(PEERS["vaurien"], Address("", 1), Address("", 2), 1)
    values = faults.steady_load("x", 50, 1.0, [subject], Effort())
    assert values == {"x": pytest.approx(1000), "x-cpu": pytest.approx(100)}


def test_ratios_with_faults_are_taken_within_rounds() -> None:
    found = results(
        "fault-latency-50",
        {"toxiproxy": {"fault-latency-50": 100.0}, "vaurien": {"fault-latency-50": 300.0}},
        {"toxiproxy": {"fault-latency-50": 200.0}, "vaurien": {"fault-latency-50": 200.0}},
        {"toxiproxy": {"fault-latency-50": 400.0}, "vaurien": {"fault-latency-50": 200.0}},
    )
    told = report.docs(found)
    assert '"","Toxiproxy","vaurien","vaurien / Toxiproxy"' in told
    assert '"200 [100, 400]","200 [200, 300]","1.00 [0.50, 3.00]"' in told


def test_nearness_to_a_value_is_no_quantity_to_take_a_ratio_of() -> None:
    key = "fault-bandwidth-10"
    found = results("fault-bandwidth", {"toxiproxy": {key: 99.5}, "vaurien": {key: 100.1}})
    assert '(% of it, 100 is best)","99.5 [99.5, 99.5]","100 [100, 100]","--"' in report.docs(found)
    assert found.as_json()["ratios"]["toxiproxy"][key] == {}  # type: ignore[index]


def test_measures_with_faults_have_a_table_of_their_own() -> None:
    both = {"bulk-to": 1.0, "fault-bulk": 2.0}
    found = results("bulk,fault-bulk", {"haproxy": {"bulk-to": 1.0}, "vaurien": both})
    titles = [line for line in report.docs(found).splitlines() if line.startswith(".. csv-table")]
    expected = ["Measured", "As a multiple of HAProxy", "With faults", "Targets"]
    assert titles == [f".. csv-table:: {title}" for title in expected]


def test_the_table_of_the_readme_is_that_of_the_last_complete_run() -> None:
    table = report.readme(json.loads(RESULTS.read_text())["rounds"])
    assert f"{BEGIN}{table}{END}" in README.read_text()
    assert table.count("\n") == len(report.FIGURES) + 4
