"""Three servers behind HAProxy, each on a machine of its own: one is drained, one killed, one upgraded.

The machines are network namespaces that the test makes; the addresses and files are those of
``chat_gevent/deploy``. The number of clients is 100, or what THREE_MACHINES_CLIENTS says.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from chat_gevent.command.deploy import FOLDER
from tests.chat_gevent.deploy.files import adapted, checked, running
from tests.conftest import command, require, require_tool
from tests.operate import ServerProcess, rest, until

CLIENTS = int(os.environ.get("THREE_MACHINES_CLIENTS", "100"))
RATE = 1000
"""Messages a second of all clients together."""
BACK_WITHIN = float(os.environ.get("THREE_MACHINES_BACK_WITHIN", "20"))
"""Seconds in which the clients of a killed server have to be confirmed again; 3 where nothing else runs."""

SETTINGS = ("--config", str(FOLDER / "chat-gevent.toml"), "--listen", "tcp://*:12345")
RETURNING = Path(__file__).parent.parent / "returning.py"
BALANCER, CLIENT = "10.0.0.10", "10.0.0.20"
MACHINES = {"one": "10.0.0.11", "two": "10.0.0.12", "three": "10.0.0.13"}


@contextmanager
def hosts() -> Iterator[Callable[[str], tuple[str, ...]]]:
    """A machine for each address, all on one network; gives what a command on a machine begins with."""
    require(os.geteuid() == 0, "root, for network namespaces")
    ip = require_tool("ip")
    names = {
        each: f"cg{os.getpid()}-{each.rpartition('.')[2]}" for each in (BALANCER, CLIENT, *MACHINES.values())
    }

    def run(*words: str) -> None:
        subprocess.run([ip, *words], check=True, capture_output=True, timeout=30)

    try:
        try:
            for name in names.values():
                run("netns", "add", name)
        except subprocess.CalledProcessError as error:
            require(False, f"network namespaces: {error.stderr.decode().strip()}")
        hub = names[BALANCER]  # its address is the bridge's
        run("-n", hub, "link", "add", "eth0", "type", "bridge")
        for number, (address, name) in enumerate(names.items()):
            if name != hub:
                run("-n", hub, "link", "add", f"port{number}", "type", "veth", "peer", "eth0", "netns", name)
                run("-n", hub, "link", "set", f"port{number}", "master", "eth0", "up")
            run("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            run("-n", name, "link", "set", "eth0", "up")
            run("-n", name, "link", "set", "lo", "up")
        yield lambda address: (ip, "netns", "exec", names[address])
    finally:
        for name in names.values():
            subprocess.run([ip, "netns", "del", name], capture_output=True, timeout=30, check=False)


@contextmanager
def haproxy(on: tuple[str, ...], folder: Path) -> Iterator[Callable[[], dict[str, tuple[str, int]]]]:
    """HAProxy with its file; gives what it shows of each server: the state, and how many clients it has."""
    file = folder / "haproxy.cfg"
    # Other than in the file are the folder of the way in, and what this process may not do everywhere.
    changes = {
        "/run/haproxy": str(folder),
        "    user haproxy\n    group haproxy\n": "",
        "maxconn 50000": "maxconn 4000",
    }
    file.write_text(adapted("haproxy.cfg", changes))

    def shown() -> dict[str, tuple[str, int]]:
        with socket.socket(socket.AF_UNIX) as way:
            way.connect(str(folder / "admin.sock"))
            way.sendall(b"show stat chat 4 -1 json\n")
            answer = json.loads(rest(way))
        rows = [{each["field"]["name"]: each["value"]["value"] for each in fields} for fields in answer]
        return {row["svname"]: (row["status"], row["scur"]) for row in rows if row["svname"] in MACHINES}

    with running(*on, require_tool("haproxy"), "-db", "-f", file, log=folder / "haproxy.log"):
        until(lambda: (folder / "admin.sock").exists())
        yield shown


class Crowd:
    """Clients that come back, in a process of their own on a machine of their own."""

    def __init__(self, on: tuple[str, ...]) -> None:
        words = [*on, sys.executable, str(RETURNING), BALANCER, "12345", str(CLIENTS), str(RATE)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def await_all(self) -> None:
        """Wait until each of them has been confirmed."""
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], 40)[0]
        assert self.process.stdout.readline() == "all there\n"

    def finish(self) -> dict[str, Any]:
        """Have them send no more; returns what they have seen."""
        out, _ = self.process.communicate(timeout=40)
        seen: dict[str, Any] = json.loads(out)
        return seen

    def close(self) -> None:
        """End it, whatever it is doing."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@contextmanager
def crowd_of_clients(on: tuple[str, ...]) -> Iterator[Crowd]:
    """Clients that have ended when this has."""
    crowd = Crowd(on)
    try:
        yield crowd
    finally:
        crowd.close()


def read_by(log: str) -> dict[int, int]:
    """From a server's access log: for the source port of each client, how many messages it has read."""
    lines = re.findall(rf"closed client={CLIENT}:(\d+) .*messages=(\d+) ", log)
    assert len({port for port, _ in lines}) == len(lines)
    return {int(port): int(messages) for port, messages in lines}


def back_after(lost: dict[str, Any], connections: list[dict[str, Any]]) -> float:
    """When the client of a connection that was lost was confirmed on its next one."""
    later = [
        each["first"]
        for each in connections
        if each["client"] == lost["client"] and each["port"] > lost["port"]
    ]
    return float(min(time for time in later if time))


@pytest.mark.timeout(300)
def test_one_is_drained_one_killed_one_upgraded(
    operate: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """Under load: what the drained and the upgraded server have read was confirmed, to the message, and their
    clients were told why they had to leave; the clients of the killed one are confirmed again in time; every
    message of every client is confirmed in the end, in its order; and an upgraded server gets clients again.
    """
    with hosts() as on:

        def start(name: str) -> ServerProcess:
            return operate(*SETTINGS, "--access-log", prefix=on(MACHINES[name]))

        drained, killed, upgraded = map(start, MACHINES)
        with haproxy(on(BALANCER), tmp_path) as shown, crowd_of_clients(on(CLIENT)) as crowd:

            def clients(name: str) -> int:
                return shown()[name][1]

            until(lambda: all(state == "UP" for state, _ in shown().values()), 30, "HAProxy finds all three")
            crowd.await_all()
            assert max(map(clients, MACHINES)) <= 1.2 * CLIENTS / 3 + 1

            assert drained.stop(seconds=60) == 0
            assert shown()["one"][0].startswith("DOWN")
            until(lambda: clients("two") + clients("three") == CLIENTS, 30, "its clients are with the others")

            when = time.monotonic()
            killed.stop(signal.SIGKILL)
            until(lambda: clients("three") == CLIENTS, 30, "all clients are with the one that is left")
            second = start("two")  # as a service manager does
            until(lambda: shown()["two"][0] == "UP")

            assert upgraded.stop(seconds=60) == 0
            until(
                lambda: clients("two") == CLIENTS, 30, "all clients are with the one that was started again"
            )
            third = start("three")
            until(lambda: shown()["three"][0] == "UP")
            hello = (*on(CLIENT), *command("client", "--host", BALANCER, "hello"))
            assert checked(*hello) == "Received: hello\n"
            third.logged(rf"closed client={CLIENT}:\d+ .*messages=1 ")
            seen = crowd.finish()
        for server in (second, third):
            assert server.stop(seconds=60) == 0

    assert seen["unfinished"] == seen["due"] == 0
    assert seen["wrong"] == []
    connections = {each["port"]: each for each in seen["connections"]}
    assert sum(each["confirmed"] for each in connections.values()) == seen["sent"] > 5 * CLIENTS
    for server in (drained, upgraded):
        messages = read_by(server.log)
        assert len(messages) > CLIENTS / 4
        assert {port: connections[port]["confirmed"] for port in messages} == messages
        assert {connections[port]["end"] for port in messages} == {"shutting-down"}
        assert re.search(
            rf"stopped: {sum(messages.values())} messages answered, 0 clients cut off", server.log
        )
    lost = [each for each in seen["connections"] if each["end"] not in ("shutting-down", "stopped")]
    assert len(lost) > CLIENTS / 4
    odd = [each for each in lost if not when < each["ended"] < when + BACK_WITHIN]
    assert not odd, f"{len(odd)} were lost at {[each['ended'] - when for each in odd]}, such as {odd[:3]}"
    slowest = max(back_after(each, seen["connections"]) - when for each in lost)
    print(f"{len(lost)} of {CLIENTS} clients lost their server and were back within {slowest:.2f} s")
    assert slowest < BACK_WITHIN


CONNECT = """
import socket, sys, time
made = [socket.create_connection((sys.argv[1], 12345), 90) for _ in range(2)]
for each in made:
    each.sendall(b"hello\\n")
    assert each.recv(100) == b"Received: hello\\n"
print("connected", flush=True)
sys.stdin.readline()
made[0].sendall(b"and again\\n")
for each in made:
    try:
        assert each.recv(100) == b""
    except ConnectionResetError:
        pass
    print("ended", flush=True)
"""
"""Two clients of one server; the second is idle when it vanishes."""


@pytest.mark.timeout(180)
def test_a_machine_that_vanishes_is_noticed(operate: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """When the cable is cut HAProxy gives it no more clients, and after about 20 s ends the connections of
    those that it had: of the one that waits for a confirmation and of the idle one."""
    with hosts() as on:
        operate(*SETTINGS, prefix=on(MACHINES["one"]))
        with haproxy(on(BALANCER), tmp_path) as shown:
            until(lambda: [state for state, _ in shown().values()] == ["UP", "DOWN", "DOWN"])
            words = [*on(CLIENT), sys.executable, "-c", CONNECT, BALANCER]
            pair = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            try:
                assert pair.stdout is not None
                assert pair.stdout.readline() == "connected\n"
                cut = time.monotonic()
                checked(*on(MACHINES["one"]), "ip", "link", "set", "eth0", "down")
                until(lambda: shown()["one"][0] == "DOWN", 30, "HAProxy gives it no more clients")
                out, _ = pair.communicate("go\n", timeout=80)
                assert out == "ended\nended\n"
                assert pair.returncode == 0
                assert 10 < time.monotonic() - cut < 80
            finally:
                pair.kill()
                pair.communicate()
