"""Where a proxy listens that Toxiproxy's API has made or changed: over real sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control.helpers import Api, Remote
from tests.laws.helpers import has_ipv6, unused_port
from tests.rivals.differences import differs
from tests.support import Backend, Program, dial, exchange, parse_address, receive_all

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with Api() as api:
        yield api
        assert "Traceback" not in api.text, api.text


@pytest.fixture
def proxy(api: Api, echo_backend: Backend) -> Iterator[Remote]:
    with api.proxy(echo_backend) as proxy:
        yield proxy


def refuses(address: str) -> bool:
    """Whether nobody listens there."""
    try:
        dial(address).close()
    except ConnectionRefusedError:
        return True
    return False


# Port 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_port_0_in_a_change_is_another_port_and_ends_the_connections(
    proxy: Remote, host: str
) -> None:
    with proxy.dial() as client:
        assert exchange(client, b"old") == b"old"
        made = proxy.change(listen=f"{host}:0")
        assert made == proxy.show()
        assert made["listen"] != proxy.address
        assert made["listen"].startswith("127.0.0.1:")
        assert receive_all(client) == b""
    assert refuses(proxy.address)
    with dial(made["listen"]) as client:
        assert exchange(client, b"new") == b"new"


def test_a_change_that_names_no_address_or_the_present_one_moves_nothing(proxy: Remote) -> None:
    port = parse_address(proxy.address)[1]
    with proxy.dial() as client:
        for fields in (
            {},
            {"enabled": True},
            {"listen": proxy.address},
            {"listen": f"localhost:{port}"},
            {"listen": None},
            proxy.show(),
        ):
            assert proxy.change(**fields)["listen"] == proxy.address
            assert exchange(client, b"same") == b"same"


def test_port_0_is_another_port_for_a_proxy_that_is_disabled_too(proxy: Remote) -> None:
    assert proxy.change(listen="127.0.0.1:0", enabled=False)["listen"] == "127.0.0.1:0"
    first = proxy.change(enabled=True)["listen"]
    assert first != proxy.address
    proxy.change(enabled=False)
    assert proxy.change(enabled=True)["listen"] == first  # which it keeps, if nobody asks
    proxy.change(enabled=False)
    assert proxy.change(listen="127.0.0.1:0")["listen"] == "127.0.0.1:0"
    assert proxy.change(enabled=True)["listen"] != first


@differs("populate-port-0")
def test_populate_with_port_0_leaves_a_proxy_where_it_is(api: Api, proxy: Remote) -> None:
    body = {"name": "p", "listen": "127.0.0.1:0", "upstream": proxy.show()["upstream"]}
    with proxy.dial() as client:
        assert exchange(client, b"old") == b"old"
        for _ in range(2):
            made = api.ask("POST", "/populate", [body], 201)["proxies"]
            assert made == [proxy.show()]
            assert made[0]["listen"] == proxy.address
        assert exchange(client, b"same") == b"same"


def test_a_port_0_that_cannot_be_moves_nothing(proxy: Remote) -> None:
    with proxy.dial() as client:
        assert exchange(client, b"old") == b"old"
        error = proxy.api.refused("POST", proxy.path, {"listen": "192.0.2.1:0"}, 500)
        assert error.endswith("bind: cannot assign requested address")
        assert proxy.show()["listen"] == proxy.address
        assert exchange(client, b"same") == b"same"


# 0.0.0.0


def both(listen: str) -> list[str]:
    """The two loopback addresses of who listens everywhere."""
    assert listen.startswith("[::]:"), listen
    port = parse_address(listen)[1]
    return [f"127.0.0.1:{port}", f"[::1]:{port}"]


@needs_ipv6
@pytest.mark.parametrize("listen", ["0.0.0.0:0", ":0", "[::]:0"])
def test_a_proxy_of_the_api_has_both_kinds_of_addresses(
    api: Api, echo_backend: Backend, listen: str
) -> None:
    with api.proxy(echo_backend, listen=listen) as proxy:
        for address in both(proxy.address):
            with dial(address) as client:
                assert exchange(client, b"both") == b"both"


@needs_ipv6
def test_a_proxy_that_moves_to_0_0_0_0_has_both(proxy: Remote) -> None:
    for address in both(proxy.change(listen="0.0.0.0:0")["listen"]):
        with dial(address) as client:
            assert exchange(client, b"both") == b"both"


@needs_ipv6
def test_what_a_client_was_shown_moves_nothing(api: Api, echo_backend: Backend) -> None:
    with api.proxy(echo_backend, listen="0.0.0.0:0") as proxy:
        port = parse_address(proxy.address)[1]
        with dial(f"[::1]:{port}") as client:
            assert exchange(client, b"old") == b"old"
            for listen in (proxy.address, f"0.0.0.0:{port}", f":{port}"):
                assert proxy.change(listen=listen)["listen"] == proxy.address
                body = {"name": "p", "listen": listen, "upstream": echo_backend.address}
                made = api.ask("POST", "/populate", [body], 201)["proxies"][0]
                assert made["listen"] == proxy.address
                assert exchange(client, b"same") == b"same"


@needs_ipv6
def test_a_proxy_of_toxiproxys_file_has_both(tmp_path: Path, echo_backend: Backend) -> None:
    file = tmp_path / "toxiproxy.json"
    one = {"name": "one", "listen": "0.0.0.0:0", "upstream": echo_backend.address}
    file.write_text(json.dumps([one]))
    with Program("--config", file) as program:
        for address in both(program.address):
            with dial(address) as client:
                assert exchange(client, b"both") == b"both"


@needs_ipv6
def test_a_proxy_of_the_command_line_stays_on_ipv4(echo_backend: Backend) -> None:
    with Api("--local", "0.0.0.0:0", "--distant", echo_backend.address) as api:
        shown = api.ask("GET", "/proxies/default")
        host, port = parse_address(shown["listen"])
        assert host == "0.0.0.0"
        with dial(f"127.0.0.1:{port}") as client:
            # as clients do that send back all that they were shown
            for fields in (shown, {"listen": f"0.0.0.0:{port}"}):
                assert api.ask("POST", "/proxies/default", fields)["listen"] == f"0.0.0.0:{port}"
                assert exchange(client, b"same") == b"same"
        assert refuses(f"[::1]:{port}")


def test_a_backend_that_is_the_proxy_itself_by_its_other_kind_is_refused(api: Api) -> None:
    port = unused_port()
    body = {"name": "q", "listen": f"0.0.0.0:{port}", "upstream": f"[::1]:{port}"}
    sentence = api.refused("POST", "/proxies", body)
    assert sentence == f"upstream: '[::1]:{port}' is where it listens itself"
