"""Where a proxy listens that Toxiproxy's API has made or changed: over real sockets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.control.helpers import Api, Remote
from tests.support import Backend, dial, exchange, parse_address, receive_all


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
