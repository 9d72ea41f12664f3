"""Messages that come unasked, and the names and bytes that all of a conversation's calls have to do with.

Pushes are read in the loop while nobody waits for a reply, so a user that sleeps answers a server's PING all
the same. Their handler is called there, and can't wait for anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from time import perf_counter, time, time_ns
from typing import Any, Final

from loadtest.count.counters import PUSH, REQUEST, RESERVED, TRANSACTION, Entry
from loadtest.errors import Failure, RequestFailed
from loadtest.framing import Wire
from loadtest.session import TcpSession

_STAMP: Final = re.compile(rb"@(\d{19})@")


class Pushes:
    """What a conversation does with messages that come unasked."""

    __slots__ = ("entry", "handler", "match")

    def __init__(self, entry: Entry, handler: Callable[[bytes], bytes | None], match: bytes | None) -> None:
        self.entry = entry
        self.handler = handler
        self.match = None if match is None else re.compile(match)

    def is_push(self, message: bytes) -> bool:
        """Whether ``message`` is a push although a reply is due."""
        return self.match is not None and self.match.match(message) is not None


class PushSession(TcpSession):
    """A session with a handler for pushes."""

    __slots__ = ("_pushes",)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._pushes: Pushes | None = None

    def push(
        self,
        handler: Callable[[bytes], bytes | None] | None,
        *,
        name: str = "PUSH",
        match: bytes | None = None,
    ) -> None:
        """Have ``handler`` take what comes unasked from now on; each message is counted as ``name``.

        What it returns is sent, in the connection's framing. It runs in the loop, where nothing can be
        waited for. A message with a :meth:`stamp` in it has a latency, from when that was made. While a
        reply is due, the next message is the reply, unless the regular expression ``match`` says that it is
        a push. None as handler ends it.
        """
        self._pushes = Pushes(self._entry(name, PUSH), handler, match) if handler is not None else None
        self._opened()
        if self.tcp.connected and self._pushes is not None and not self.tcp.busy:
            try:
                self._take_pushes(self.tcp.take_surplus())
            except RequestFailed:
                pass  # found out again by what is done next

    @staticmethod
    def stamp() -> bytes:
        """The present time, to be put into a message that is pushed to others: 21 bytes without blanks.

        Their latency counts from it, by the clock of ``time.time_ns``: across machines it is as good as
        their clocks.
        """
        return b"@%d@" % time_ns()

    def surplus(self) -> None:
        """What came unasked are pushes, where somebody takes them."""
        if self._pushes is None:
            super().surplus()
        else:
            self._take_pushes(self.tcp.take_surplus())

    def _opened(self) -> None:
        self.tcp.on_input = None if self._pushes is None else self._on_input

    def _on_input(self) -> None:
        """There is input, and nobody waits for it."""
        try:
            self._take_pushes(self.tcp.read_pushed())
        except RequestFailed:
            self.tcp.on_input = None  # whatever is done next on the connection finds out, and counts it
            self.tcp.stop_watching()

    def _take_pushes(self, messages: list[bytes]) -> None:
        pushes = self._pushes
        assert pushes is not None
        entry = pushes.entry
        for message in messages:
            stamp = _STAMP.search(message) if b"@" in message else None
            seconds = max(0.0, (time_ns() - int(stamp[1])) / 1e9) if stamp else 0.0
            error: RequestFailed | None = None
            try:
                answer = pushes.handler(message)
                if answer is not None:
                    wire = self._wire(answer)
                    self.tcp.send_now(wire)
                    entry.bytes_out += len(wire)
            except RequestFailed as failure:
                error = failure
            except Exception as failure:  # noqa: BLE001 - the loop would only print it
                error = Failure(type(failure).__name__)
            entry.bytes_in += len(message)
            if error is not None:
                now = perf_counter()
                self.count_failure(entry, error, now, now, 0.0)
            elif stamp:
                entry.whole[int(seconds * 1e6)] += 1
            else:
                entry.untimed += 1
            self.report(entry.name, seconds * 1e3, len(message), message, time() - seconds, error)

    # -- arguments ---------------------------------------------------------------------------------

    def _wire(self, message: bytes | str) -> bytes:
        if type(message) is bytes:
            return self.options.framing.encode(message)
        if isinstance(message, str):
            return self.options.framing.encode(message.encode())
        if isinstance(message, bytes):
            return bytes(message) if isinstance(message, Wire) else self.options.framing.encode(message)
        raise TypeError(f"a message is bytes or a text, not {message!r}")

    def _entry(self, name: str, kind: str) -> Entry:
        """The entry that a user calls ``name``. Raises TypeError, ValueError."""
        if kind is REQUEST:
            found = self.counters.entries.get(name if not self.label else f"{name}{self.label}")
            if found is not None and found.kind is REQUEST and name not in RESERVED:
                return found
        if not isinstance(name, str):
            raise TypeError(f"a name is a text, not {name!r}")
        if name in RESERVED or name.startswith("transaction "):
            raise ValueError(f"{name!r} is an entry of the kit's own: choose another name")
        if not name or not name.isprintable() or " @" in name:
            raise ValueError(f"{name!r} can't be a name: it is printable, not empty, and has no ' @' in it")
        return self.entry(f"transaction {name}" if kind is TRANSACTION else name, kind)
