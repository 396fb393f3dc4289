"""The benchmarks: what is asked for is measured, and the tables say what came of it."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from benchmarks import faults, report, streamer
from benchmarks.__main__ import BEGIN, END, MEASURES, README, RESULTS, _chosen
from benchmarks.measures import Effort, Measure, Round
from benchmarks.peers import PEERS, ROOT, Fault, Launch, Subject
from benchmarks.processes import Address, RunError, free_address, started
from benchmarks.results import Results
from benchmarks.rounds import able

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
    assert specs == wanted if measure.faulty else specs >= {"haproxy", "vaurien-picks"}


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
