"""A master that forks workers with shared figures, and does nothing else: run by the tests as a command.

``python -m tests.chat_gevent.command.forked_workers COUNT`` prints where the admin pages are, and then, for
each worker that serves, its slot, process id and address. On standard input it takes ``start``, and
``release SLOT`` for a worker that has been killed.
"""

from __future__ import annotations

import os
import sys

from chat_gevent.command import peers
from chat_gevent.command.config import ServeSettings
from chat_gevent.command.shared import SharedFigures
from chat_gevent.framing import LINE
from chat_gevent.listeners import Listener, listen

vars(peers)["ASK_SECONDS"] = 1.0  # on a busy machine a worker may well need longer than in earnest
SETTINGS = ServeSettings(host="127.0.0.1", port=0, framing=LINE, linger_timeout=1, write_timeout=60)


def main(count: int) -> None:
    """Serve until standard input ends."""
    shared = SharedFigures(2 * count)
    (admin,) = listen("tcp://127.0.0.1:0", SETTINGS)
    say("admin", admin.socket.getsockname()[1])
    pids: dict[int, int] = {}
    for _ in range(count):
        start(shared, admin, pids)
    for line in sys.stdin:
        words = line.split()
        if words[0] == "start":
            start(shared, admin, pids)
        else:
            slot = int(words[1])
            os.waitpid(pids.pop(slot), 0)
            shared.release(slot)
            say("released", slot)


def say(*words: object) -> None:
    """Print a line at once."""
    print(*words, flush=True)


def start(shared: SharedFigures, admin: Listener, pids: dict[int, int]) -> None:
    """Fork a worker, and print where it serves once it does."""
    slot = shared.claim()
    ready, says_ready = os.pipe()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.close(0)
            os.dup2(says_ready, 1)
            status = serve(shared, slot, admin)
        finally:
            os._exit(status)
    os.close(says_ready)
    pids[slot] = pid
    url = os.read(ready, 1000).decode().split()[1]
    os.close(ready)
    say("worker", slot, pid, url.rsplit(":", 1)[1])


def serve(shared: SharedFigures, slot: int, admin: Listener) -> int:
    """Be a worker until a signal ends it; returns the exit status."""
    import gevent

    gevent.reinit()
    from chat_gevent.command import logs
    from chat_gevent.command.admin import Admin
    from chat_gevent.command.process import ServerProcess
    from chat_gevent.command.together import Together

    repeats = logs.start("warning", "text")
    try:
        with ServerProcess(SETTINGS, repeats, listen("tcp://127.0.0.1:0", SETTINGS)) as process:
            process.admin = Admin(Together(process, process.core, shared, slot), SETTINGS, admin)
            return process.run()
    finally:
        logs.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]))
