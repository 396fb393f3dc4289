"""redis-server and redis-py with Vaurien between them."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from tests.e2e.conftest import Redis
from tests.support import Program, parse_address, proxy

pytestmark = pytest.mark.program("redis-server")


def connected(program: Program, **arguments: Any) -> redis.Redis:
    host, port = parse_address(program.address)
    return redis.Redis(host=host, port=port, socket_timeout=20, **arguments)


@pytest.fixture(params=["100:dummy", "20:delay", "100:delay"])
def program(request: pytest.FixtureRequest, redis_server: Redis) -> Iterator[Program]:
    """Vaurien before Redis, with some behaviors that lose nothing."""
    arguments = ("--behavior", request.param, "--handlers.delay.sleep", 0.002, "--seed", 1)
    with proxy(redis_server.address, *arguments) as running:
        yield running
        assert "Traceback" not in running.text
        assert "ERROR" not in running.text


def test_each_command_gets_its_own_answer(program: Program) -> None:
    with connected(program) as client:
        for number in range(150):
            assert client.set(f"key:{number}", number)
        assert [int(client.get(f"key:{number}")) for number in range(150)] == list(range(150))


def test_a_pipeline_of_a_thousand_comes_back_in_order(program: Program) -> None:
    with connected(program) as client:
        for turn in range(5):
            with client.pipeline(transaction=turn % 2 == 0) as pipeline:
                client.delete("counter")
                for _ in range(1000):
                    pipeline.incr("counter")
                assert pipeline.execute() == list(range(1, 1001))


def test_published_messages_come_in_order(program: Program) -> None:
    with connected(program) as subscriber, connected(program) as publisher:
        with subscriber.pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe("news")
            assert channel.get_message(timeout=20) is None  # the subscription's own
            for number in range(200):
                assert publisher.publish("news", number) == 1
            messages = [channel.get_message(timeout=20) for _ in range(200)]
        assert [int(message["data"]) for message in messages if message] == list(range(200))


def test_a_blocking_command_waits_for_another_client(program: Program) -> None:
    with connected(program) as waiting, connected(program) as pushing:
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(waiting.blpop(["queue"], 20)))
        thread.start()
        pushing.rpush("queue", "job")
        thread.join(20)
        assert found == [(b"queue", b"job")]


def test_a_value_of_many_megabytes_is_what_it_was(program: Program) -> None:
    value = random.Random(2).randbytes(8_000_000)
    with connected(program) as client:
        assert client.set("large", value)
        assert client.get("large") == value
        client.delete("large")


def test_many_clients_at_a_time_get_their_own_answers(program: Program) -> None:
    wrong: list[object] = []

    def work(number: int) -> None:
        try:
            with connected(program) as client:
                for turn in range(30):
                    if client.echo(f"{number}:{turn}") != f"{number}:{turn}".encode():
                        wrong.append((number, turn))
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []


def test_unix_sockets_lead_to_redis_too(redis_server: Redis, tmp_path: Path) -> None:
    path = tmp_path / "vaurien.sock"
    with (
        proxy(f"unix:{redis_server.path}", "--local", f"unix:{path}"),
        redis.Redis(unix_socket_path=str(path)) as client,
    ):
        assert client.echo("hello") == b"hello"


def test_a_client_that_tries_again_gets_through_resets(redis_server: Redis) -> None:
    retry = Retry(ConstantBackoff(0), 50)
    arguments = ("--behavior", "30:reset", "--seed", 1)
    with (
        proxy(redis_server.address, *arguments) as program,
        connected(program, retry=retry, retry_on_error=[redis.ConnectionError]) as client,
    ):
        for number in range(50):
            assert client.set("key", number)
            assert int(client.get("key")) == number
        assert program.text.count(": reset") > 10


def test_a_client_that_does_not_try_again_sees_the_reset(redis_server: Redis) -> None:
    arguments = ("--behavior", "100:reset", "--seed", 1)
    with (
        proxy(redis_server.address, *arguments) as program,
        connected(program, retry=Retry(ConstantBackoff(0), 0)) as client,
        pytest.raises(redis.ConnectionError, match="reset"),
    ):
        client.get("key")
