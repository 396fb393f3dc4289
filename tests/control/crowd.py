"""Many connections that echo and check, in a process of their own: the test's own threads are few.

Law: what a connection gets back is what it sent, to the byte; anything else is an error by name.

It prints where its backend listens. Then a line each is read: the proxy's address, which starts the
connections; ``progress``, how many exchanges the slowest has done; ``end``, all come to their end.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sys

PATIENCE = 20.0
_POOL = hashlib.sha512(b"crowd").digest() * 400  # 25 KiB


class Client:
    """One connection: sends a piece, and waits for its echo."""

    def __init__(self, number: int) -> None:
        self.number, self.done = number, 0
        self.error = ""
        self.going = True
        self._sizes = random.Random(number)

    async def run(self, host: str, port: int) -> None:
        """Go on until told to end; then say so, and expect EOF."""
        try:
            reader, writer = await asyncio.open_connection(host, port)
            sent, got = hashlib.sha256(), hashlib.sha256()
            while self.going:
                size = self._sizes.choice((1, 100, 3000, 10_000))
                start = self._sizes.randrange(len(_POOL) - size)
                data = self.number.to_bytes(4, "big") + self.done.to_bytes(8, "big")
                data += _POOL[start : start + size]
                writer.write(data)
                sent.update(data)
                back = await reader.readexactly(len(data))
                got.update(back)
                if back != data:
                    raise AssertionError(f"exchange {self.done} came back as another")
                self.done += 1
                await asyncio.sleep(0.2)
            writer.write_eof()
            if more := await asyncio.wait_for(reader.read(), PATIENCE):
                raise AssertionError(f"{len(more)} bytes more than were sent")
            if sent.digest() != got.digest():
                raise AssertionError("the checksums differ")
            writer.close()
        except Exception as error:
            self.error = f"{self.number}, exchange {self.done}: {error!r}"


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
    except OSError:
        writer.close()


async def main(n: int) -> None:
    """Do what the lines say."""
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(_echo, "127.0.0.1", 0, backlog=1024)
    host, port = server.sockets[0].getsockname()
    _say(backend=f"{host}:{port}")
    running = [Client(number) for number in range(n)]
    tasks: list[asyncio.Task[None]] = []
    while line := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        if line == "progress":
            _say(least=min(client.done for client in running))
        elif line == "end":
            for client in running:
                client.going = False
            _, hanging = await asyncio.wait(tasks, timeout=PATIENCE)
            errors = [client.error for client in running if client.error]
            errors += ["hangs"] * len(hanging)
            _say(ended=n - len(hanging), errors=errors, done=sum(c.done for c in running))
        else:
            host, _, port = line.rpartition(":")
            tasks = [asyncio.create_task(one.run(host, int(port))) for one in running]
            _say(started=len(tasks))


def _say(**words: object) -> None:
    print(json.dumps(words), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
