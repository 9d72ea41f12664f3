"""Many clients that talk at their leisure: ``python talk.py HOST PORT CLIENTS``.

Each sends a line every tenth of a second, and reads all that comes. Prints ``talking`` once all are answered;
ends when all connections have ended.
"""

from __future__ import annotations

import asyncio
import sys


async def _talk(host: str, port: int, answered: asyncio.Semaphore) -> None:
    reader, writer = await asyncio.open_connection(host, port)

    async def speak() -> None:
        while True:
            writer.write(b"hello\n")
            await writer.drain()
            await asyncio.sleep(0.1)

    speaking = asyncio.create_task(speak())
    try:
        await reader.readline()
        answered.release()
        while await reader.read(65536):
            pass
    finally:
        speaking.cancel()
        writer.close()


async def _main(host: str, port: str, clients: str) -> None:
    answered = asyncio.Semaphore(0)
    talks = [asyncio.create_task(_talk(host, int(port), answered)) for _ in range(int(clients))]
    for _ in talks:
        await answered.acquire()
    print("talking", flush=True)
    await asyncio.wait(talks)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
