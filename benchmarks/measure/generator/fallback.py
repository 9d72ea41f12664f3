"""The load generator where no C compiler is: the same arguments, commands and answers as ``generator.c``.

It costs more CPU a message than a good server, so its figures of messages a second are its own; CPU
per confirmation of the server stays right. It checks replies as the C program does.

It is one file, as the C program is, in the same order, so that the two can be read side by side.
"""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import select
import signal
import socket
import ssl
import sys
import time
from collections import Counter, deque
from typing import Any, Final

from benchmarks.reports.histograms import add_rounded
from chat_gevent.files import raise_file_limit

RING: Final = 64
SLOT_NS: Final = 100_000_000
OPTIONS: Final[dict[str, Any]] = {
    "host": "127.0.0.1",
    "port": 0,
    "mode": "closed",
    "size": 32,
    "depth": 1,
    "rate": 1000.0,
    "poisson": 0,
    "messages": 1,
    "window": 64,
    "sources": 1,
    "first_source": 1,
    "id_base": 0,
    "terminated": 1,
    "drain": 10.0,
    "tls": 0,
    "tls_ca": "",
    "send_head": "",
    "send_body": 1,
    "send_tail": "\n",
    "expect_head": "Received: ",
    "expect_body": 1,
    "expect_tail": "\n",
}
"""Arguments with their defaults; their types are those of the defaults."""


class Connection:
    """One connection and what is under way on it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.state = "dead"
        self.growing = True
        self.io: socket.socket | None = None
        self.want = self.got = self.base = 0
        self.output = b""
        self.expected = b""
        self.times: deque[tuple[int, int]] = deque()
        self.opened = 0


class Generator:
    """All connections, and the loop that drives them."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.o = options
        self.epoll = select.epoll()
        self.epoll.register(0, select.EPOLLIN)
        self.by_fd: dict[int, Connection] = {}
        self.connections: list[Connection] = []
        self.grow_target = self.grow_opened = self.grow_done = self.grow_began = 0
        self.running = self.stopping = False
        self.next_paced = 0
        self.next_due = 0.0
        self.stop_at = 0.0
        self.errors: Counter[str] = Counter()
        self.answer: dict[str, Any] = {}
        self.tls: ssl.SSLContext | None = None
        if options["tls"]:
            self.tls = ssl.create_default_context(cafile=options["tls_ca"] or None)
            self.tls.check_hostname = False
            if not options["tls_ca"]:
                self.tls.verify_mode = ssl.CERT_NONE
        self.mark()

    def mark(self) -> None:
        """Forget what was counted."""
        self.confirmed = self.sessions = self.unsent = 0
        self.latency: Counter[int] = Counter()
        self.service: Counter[int] = Counter()
        self.slots: Counter[int] = Counter()
        self.usage = resource.getrusage(resource.RUSAGE_SELF)
        self.began = time.monotonic_ns()

    def message(self, c: Connection, number: int) -> bytes:
        """Message ``number`` of a connection, without its LF: as generator.c numbers it."""
        size: int = self.o["size"]
        digits = f"{(c.number << 32) | (number & 0xFFFFFFFF):016x}"[::-1][:size]
        return (digits + "m" * (size - len(digits))).encode()

    def framed(self, way: str, body: bytes) -> bytes:
        """A message as it is sent, or as its reply is expected."""
        head, tail = self.o[f"{way}_head"].encode(), self.o[f"{way}_tail"].encode()
        return bytes(head + (body if self.o[f"{way}_body"] else b"") + tail)

    def open(self, c: Connection) -> None:
        """Begin to connect."""
        c.state, c.opened, c.base = "connecting", time.monotonic_ns(), c.got
        c.want, c.output, c.expected = c.got, b"", b""
        c.times.clear()
        c.io = socket.socket()
        c.io.setblocking(False)
        c.io.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sources, first = self.o["sources"], self.o["first_source"]
        try:
            if sources > 1 or first > 1:
                bind_address_no_port = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24)
                c.io.setsockopt(socket.IPPROTO_IP, bind_address_no_port, 1)
                number = first + c.number % sources
                c.io.bind((f"127.0.{number >> 8}.{number & 255}", 0))
            code = c.io.connect_ex((self.o["host"], self.o["port"]))
        except OSError as error:
            code = error.errno or errno.EINVAL
        if code not in (0, errno.EINPROGRESS):
            self.fail(c, "refused" if code == errno.ECONNREFUSED else "other")
            return
        self.by_fd[c.io.fileno()] = c
        self.epoll.register(c.io.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def close(self, c: Connection) -> None:
        """Forget the socket."""
        c.state = "dead"
        if c.io is not None:
            if self.by_fd.pop(c.io.fileno(), None):
                self.epoll.unregister(c.io.fileno())
            c.io.close()
            c.io = None

    def fail(self, c: Connection, why: str) -> None:
        """Count it, and open anew unless the server must be gone."""
        self.errors[why] += 1
        c.got = c.want
        self.close(c)
        if self.errors.total() < 1000 and why not in ("other", "refused") and not self.stopping:
            self.open(c)
        elif c.growing:
            c.growing = False
            self.grow_done += 1

    def send(self, c: Connection, count: int, due: int) -> None:
        """Put ``count`` messages on the way."""
        now = time.monotonic_ns()
        bodies = [self.message(c, number) for number in range(c.want, c.want + count)]
        c.want += count
        c.expected += b"".join(self.framed("expect", body) for body in bodies)
        c.times.extend([(due, now)] * count)
        self.flush(c, b"".join(self.framed("send", body) for body in bodies))

    def flush(self, c: Connection, data: bytes = b"") -> None:
        """Send what the socket takes; the rest waits until it is writable."""
        assert c.io
        waiting = bool(c.output)
        c.output += data
        try:
            c.output = c.output[c.io.send(c.output) :] if c.output else b""
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError:
            self.fail(c, "reset")
            return
        if waiting != bool(c.output):
            self.epoll.modify(c.io.fileno(), select.EPOLLIN | (select.EPOLLOUT if c.output else 0))

    def answered(self, c: Connection) -> None:
        """All that was sent on this connection is answered: what next."""
        if c.growing:
            c.growing = False
            self.grow_done += 1
            if not self.running:
                return
        if not self.running or self.stopping:
            return
        if self.o["mode"] == "closed":
            self.send(c, self.o["depth"], time.monotonic_ns())
        elif self.o["mode"] == "churn":
            if c.got - c.base < self.o["messages"]:
                self.send(c, 1, time.monotonic_ns())
            else:
                self.leave(c)

    def leave(self, c: Connection) -> None:
        """Say /exit."""
        c.state = "leaving"
        self.flush(c, b"/exit\n" if self.o["terminated"] else b"/exit")

    def readable(self, c: Connection) -> None:
        """Compare what came with what is due."""
        assert c.io
        try:
            data = c.io.recv(1 << 18)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError:
            self.fail(c, "reset")
            return
        if not data:
            if c.state == "leaving":
                self.sessions += 1
                self.service[(time.monotonic_ns() - c.opened + 500) // 1000] += 1
                self.close(c)
                if not self.stopping:
                    self.open(c)
            else:
                self.fail(c, "ended")
            return
        if not c.expected.startswith(data):
            self.fail(c, "error-reply" if data.startswith(b"Error:") else "mismatch")
            return
        now = time.monotonic_ns()
        c.expected = c.expected[len(data) :]
        left = -(-len(c.expected) // len(self.framed("expect", bytes(self.o["size"]))))
        while c.want - c.got > left:
            c.got += 1
            due, sent = c.times.popleft()
            if self.o["mode"] != "paced" or self.running:
                self.latency[(now - due + 500) // 1000] += 1
                if self.o["mode"] == "paced":
                    self.service[(now - sent + 500) // 1000] += 1
            self.confirmed += 1
            self.slots[(now - self.began) // SLOT_NS] += 1
        if not left and c.state == "open":
            self.answered(c)

    def handle(self, c: Connection, events: int) -> None:
        """Act on what epoll says of a connection."""
        assert c.io
        if c.state == "connecting":
            code = c.io.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                self.fail(c, {errno.ECONNREFUSED: "refused", errno.ECONNRESET: "reset"}.get(code, "other"))
                return
            c.state = "handshake"
            if self.tls:
                c.io = self.tls.wrap_socket(c.io, do_handshake_on_connect=False)
        if c.state == "handshake":
            if isinstance(c.io, ssl.SSLSocket):
                try:
                    c.io.do_handshake()
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    return
                except OSError:
                    self.fail(c, "other")
                    return
            c.state = "open"
            self.epoll.modify(c.io.fileno(), select.EPOLLIN)
            if not (self.o["mode"] == "paced" and self.running):
                single = c.growing or self.o["mode"] == "churn"
                self.send(c, 1 if single else self.o["depth"], c.opened)
            return
        if events & select.EPOLLOUT and c.output:
            self.flush(c)
        while c.io is not None and events & ~select.EPOLLOUT and c.state != "connecting":
            self.readable(c)
            if not (isinstance(c.io, ssl.SSLSocket) and c.io.pending()):
                break

    def grow(self) -> None:
        """Open more of the connections that were asked for."""
        while self.grow_opened < self.grow_target and self.grow_opened - self.grow_done < self.o["window"]:
            c = Connection(self.o["id_base"] + len(self.connections))
            self.connections.append(c)
            self.grow_opened += 1
            self.open(c)
        if self.grow_target and self.grow_done == self.grow_target:
            self.say({"event": "grown", "ns": time.monotonic_ns() - self.grow_began, **self.counts()})
            self.grow_target = 0

    def pace(self) -> None:
        """Send the messages whose time has come."""
        now = time.monotonic_ns()
        for _ in range(64):
            if self.next_due > now:
                break
            for _ in range(16):
                c = self.connections[self.next_paced % len(self.connections)]
                self.next_paced += 1
                if c.state == "open" and c.want - c.got < RING:
                    break
            else:
                break  # every connection is full: the message stays due, and its latency tells
            self.send(c, 1, int(self.next_due))
            self.next_due += 1e9 / self.o["rate"] * (random.expovariate(1) if self.o["poisson"] else 1)

    def counts(self) -> dict[str, Any]:
        """What the answers share."""
        return {
            "confirmed": self.confirmed,
            "sessions": self.sessions,
            "unsent": self.unsent,
            "open": sum(c.state == "open" for c in self.connections),
            "errors": dict(self.errors),
        }

    def cpu(self, pids: list[str]) -> dict[str, int]:
        """CPU of the server's processes up to now, and this process's since the mark."""
        server = 0
        for pid in pids:
            try:
                server += time.clock_gettime_ns((~int(pid) << 3) | 2)
            except OSError:
                continue
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "server_cpu_ns": server,
            "user_us": int((usage.ru_utime - self.usage.ru_utime) * 1e6),
            "system_us": int((usage.ru_stime - self.usage.ru_stime) * 1e6),
        }

    def say(self, answer: dict[str, Any]) -> None:
        """Answer a command."""
        print(json.dumps(answer), flush=True)

    def command(self, line: str) -> None:
        """Do what a line of standard input says."""
        word, *arguments = line.split()
        now = time.monotonic_ns()
        if word == "grow":
            self.grow_target, self.grow_opened, self.grow_done = int(arguments[0]), 0, 0
            self.grow_began = now
            if not self.grow_target:
                self.say({"event": "grown", "ns": 0, **self.counts()})
        elif word == "start":
            self.running, self.next_due = True, float(now)
            for c in self.connections:
                if c.state == "open" and c.got == c.want:
                    if self.o["mode"] == "closed":
                        self.send(c, self.o["depth"], time.monotonic_ns())
                    elif self.o["mode"] == "churn":
                        self.leave(c)
            self.say({"event": "started"})
        elif word == "mark":
            self.mark()
            self.say({"event": "marked", "ns": self.began, **self.cpu(arguments)})
        elif word == "stop":
            if self.o["mode"] == "paced" and self.running:
                due = self.next_due
                while due < now:
                    self.latency[int(now - due + 500) // 1000] += 1
                    self.unsent += 1
                    due += 1e9 / self.o["rate"]
            full = (now - self.began) // SLOT_NS
            self.answer = {"event": "stopped", "ns": now - self.began, **self.cpu(arguments)}
            self.answer |= {
                "confirmed_in_window": self.confirmed,
                "slots": [self.slots[i] for i in range(full)],
            }
            self.stopping, self.stop_at = True, now + self.o["drain"] * 1e9
        elif word == "rate":
            self.o["rate"] = float(arguments[0])
        elif word == "quit":
            raise SystemExit

    def finish(self) -> None:
        """After stop: once all is answered, or time is up, answer it."""
        due = sum(c.want - c.got + (c.state == "leaving") for c in self.connections if c.state != "dead")
        if due and time.monotonic_ns() < self.stop_at:
            return
        if due:
            self.errors["unanswered"] += due
        histograms = {"latency_us": _pairs(self.latency), "service_us": _pairs(self.service)}
        self.say(self.answer | self.counts() | histograms)
        self.stopping = self.running = False

    def run(self) -> None:
        """Loop until quit or end of input."""
        text = b""
        while True:
            pacing = self.running and not self.stopping and self.o["mode"] == "paced"
            wait = 0.01 if self.stopping else -1.0
            if pacing:
                wait = max(0.0, (self.next_due - time.monotonic_ns()) / 1e9)
            for fd, events in self.epoll.poll(wait):
                if fd:
                    if c := self.by_fd.get(fd):
                        self.handle(c, events)
                    continue
                data = os.read(0, 65536)
                if not data:
                    return
                *lines, text = (text + data).split(b"\n")
                for line in lines:
                    self.command(line.decode())
            if self.grow_target:
                self.grow()
            if pacing and not self.stopping:  # what is due at the stop was told as unsent
                self.pace()
            if self.stopping:
                self.finish()


def _pairs(counts: Counter[int]) -> list[tuple[int, int]]:
    """Latencies with their counts as the generator in C tells them: rounded down to HDR buckets."""
    rounded: dict[int, int] = {}
    add_rounded(counts, rounded)
    return sorted(rounded.items())


def main() -> int:
    """Read the arguments and run."""
    options = dict(OPTIONS)
    for argument in sys.argv[1:]:
        name, equals, value = argument.partition("=")
        if not equals or name not in OPTIONS:
            print(f"generator: unknown argument {argument}", file=sys.stderr)
            return 2
        options[name] = type(OPTIONS[name])(value)
    raise_file_limit()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Generator(options).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
