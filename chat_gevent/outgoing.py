"""A connection's state, and what is due to its client.

:class:`Outgoing` is the part of a connection that holds its values: its one state (:mod:`chat_gevent.state`),
which :meth:`Outgoing.move` changes and nothing else, and its outbox, into which replies, errors and pushes go
in the order of the calls. What lies there leaves at the end of the engine's turn, or when the connection's
own greenlet sends it.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from _socket import socket as RawSocket
from collections.abc import Callable
from typing import Any

from gevent import Greenlet, GreenletExit

from chat_gevent.addresses import Address, peer_address
from chat_gevent.confirm import ErrorCode
from chat_gevent.conversation import join
from chat_gevent.errors import Closed
from chat_gevent.framing import Auto, Framing, Kept, Line
from chat_gevent.service import Client
from chat_gevent.state import CLOSED, CLOSING, OPENING, PARKED, PARKED_SHORT, State
from chat_gevent.stream import Stream

log = logging.getLogger("chat_gevent")

Opening = Callable[[Any], bytes]
"""Done once, in a leased greenlet, before a connection's first message; returns input read too much."""


def error_bytes(core: Any, framing: Framing, code: ErrorCode, explanation: str) -> bytes:
    """An error in the service's words, framed; nothing where it has none. Raises what its hook does."""
    words = core.service.error_reply(code, explanation)
    if words is None:
        return b""
    error: bytes = words.encode() if isinstance(words, str) else words
    # Under ``auto`` nothing is decided yet: an error is a line there.
    return error + b"\n" if type(framing) is Auto else framing.encode(error)


class Outgoing(Stream):
    """State and outbox of a connection. Parameters as of :class:`chat_gevent.connection.Connection`."""

    __slots__ = (
        "client",
        "framing",
        "input",
        "kept",
        "leaving",
        "messages",
        "opening",
        "peer",
        "reason",
        "received",
        "since",
        "state",
        "tick",
    )

    def __init__(self, socket: RawSocket, core: Any, opening: Opening | None = None) -> None:
        super().__init__(socket, core)
        self.opening = opening
        self.framing: Framing = core.framing
        self.kept: Kept = b""  # the beginning of a message
        self.input: Kept | None = None  # what was read and not looked at yet
        self.leaving = ""  # why it was asked to leave; the error code if there is one to tell
        self.reason = "killed"  # of the close; set by whoever knows better
        self.tick = self.since = core.engine.tick  # of its last activity, and of its beginning
        self.messages = self.received = 0
        self.peer: Address | None = None  # the address that a PROXY header gave
        self.client: Client[Any] | None = None  # what handlers and hooks know of it
        self.state = OPENING
        if opening is None and not core.greets:
            self.state = self._parked()

    # -- state ---------------------------------------------------------------------------------------

    def move(self, state: State) -> None:
        """Change the state: nothing else does. :data:`chat_gevent.state.MOVES` has all moves."""
        self.state = state

    def _parked(self) -> State:
        """What it is when it is parked: whether its next input may go the short way."""
        framing = type(self.framing)
        short = (
            self.core.confirms
            and (framing is Line or (framing is Auto and not self.kept))
            and not self.outbox
            and not self.leaving
        )
        return PARKED_SHORT if short else PARKED

    @property
    def encrypted(self) -> bool:
        """Whether the socket decrypts, and so may hold input that epoll knows nothing of."""
        return type(self.socket) is not self.core.system.socket

    @property
    def is_leaving(self) -> bool:
        """Whether the end has begun: nothing that is sent to the client from now on would reach it."""
        return self.state >= CLOSING or bool(self.leaving)

    @property
    def address(self) -> Address | None:
        """The peer's address, of a PROXY header or the kernel; None once gone."""
        if self.peer is not None:
            return self.peer
        try:
            return peer_address(self.socket.getpeername())
        except OSError:
            return None

    # -- what is due ----------------------------------------------------------------------------------

    def known_client(self) -> Client[Any]:
        """What handlers and hooks are given for this connection."""
        if self.client is None:
            self.client = Client(self, self.core.next_id())
        return self.client

    def _due(self) -> list[str | bytes]:
        if self.outbox is None:
            self.outbox = []
        return self.outbox

    def _framed(self, message: str | bytes) -> bytes:
        """A reply or push of the service as bytes. Raises TypeError, UnicodeEncodeError."""
        return self.framing.encode(self.core.encode(message))

    def join(self, due: list[str | bytes]) -> bytes:
        """What is due, as bytes. A text that can't be encoded or framed is its handler's failure."""
        try:
            if type(self.framing) is Line:
                try:
                    return ("\n".join(due) + "\n").encode()  # type: ignore[arg-type]
                except TypeError:  # some are bytes
                    pass
            return join(self.framing, due)
        except Exception:  # noqa: BLE001 - whatever a service's own framing raises
            encoded: list[str | bytes] = []
            for each in due:
                try:
                    encoded.append(self._framed(each) if isinstance(each, str) else each)
                except Exception:  # noqa: BLE001 - as above
                    self._service_failed("message")
                    self._tell_error(
                        ErrorCode.HANDLER_FAILED, "the server could not handle the message", encoded
                    )
            return join(self.framing, encoded)

    def _service_failed(self, hook: str) -> None:
        """A hook has raised. Raises Closed: it was ended with its connection."""
        if self.state is CLOSED:
            raise Closed from None
        if isinstance(sys.exception(), GreenletExit) and isinstance(self.greenlet, Greenlet):
            self.leaving = self.leaving or "killed"  # somebody's pool ends it: after what is due
        # The hook is in the template, which is what the log counts repetitions by.
        log.exception(f"{'handler' if hook == 'message' else hook} failed for %s", self.address)

    def _tell_error(self, code: ErrorCode, explanation: str, due: list[str | bytes] | None = None) -> None:
        """Put an error into what is due, in the service's words; nothing where these fail."""
        self.core.registry.errors[code] += 1
        if due is None:
            self.core.broadcasts.catch_up(self)  # what was broadcast before comes before
        try:
            framed = error_bytes(self.core, self.framing, code, explanation)
            if not framed:
                return
        except BaseException:  # noqa: BLE001 - what a hook raises is its own failure, not the server's
            self._service_failed("error_reply")
        else:
            (self._due() if due is None else due).append(framed)

    def push(self, message: str | bytes) -> bool:
        """Put a message into what is due, to be sent with the turn; False once the client is gone."""
        data = self._framed(message)
        if self.is_leaving:
            return False
        if self.core.broadcasts.running:
            self.core.broadcasts.catch_up(self)
        return self.push_framed(data)

    def push_framed(self, data: bytes) -> bool:
        """As :meth:`push`, with bytes that are framed."""
        # In rooms this is most of what a delivery costs, so it makes few calls.
        if self.state >= CLOSING or self.leaving or not self.core.has_room(self, len(data)):
            return False
        if self.outbox is None:
            self.outbox = [data]
        else:
            self.outbox.append(data)
        if self.state is PARKED_SHORT:
            self.move(PARKED)
        self.core.engine.flush_soon(self)
        return True

    def push_at_once(self, data: bytes) -> None:
        """As :meth:`push_framed`, sent now where nothing else is due. In the hub; never blocks."""
        state = self.state
        if (state is not PARKED and state is not PARKED_SHORT) or self.outbox or self.leaving:
            self.push_framed(data)
            return
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.lost(error)
            return
        self.sent += sent
        if sent == 0 and not self.encrypted:
            if self.push_framed(data):
                self.core.engine.wait_for_room(self)
            return
        core = self.core
        core.registry.pushes += 1
        if sent < len(data):  # TLS may have taken all of it by now: what has begun is finished
            if core.settings.slow_consumer == "close" and not core.broadcasts.fit(len(data) - sent):
                self.give_up("slow")
                return
            core.owe(self, len(data) - sent)
            self._due().append(data[sent:])
            if self.state is PARKED_SHORT:
                self.move(PARKED)
            core.engine.wait_for_room(self)
            return
        if core.idle_any:
            self.tick = core.engine.tick

    def touch(self) -> None:
        """Count this moment as activity; not of a client that is about to go, for which time is limited."""
        if self.state < CLOSING:
            self.tick = self.core.engine.tick

    def flush_in_hub(self) -> None:
        """Send what is due as far as the kernel takes it; the engine waits for room for the rest."""
        if self.state is CLOSED:
            return
        before = self.sent
        try:
            gone = self.flush()
        except OSError as error:
            self.lost(error)
            return
        engine = self.core.engine
        if not gone:
            engine.wait_for_room(self, self.sent != before)
            if self.core.settings.min_read_rate:
                with contextlib.suppress(OSError):
                    self.core.waited_for.setdefault(self, (self.core.system.monotonic(), self.taken()))
            return
        engine.room_found(self)
        self.core.waited_for.pop(self, None)
        if self.core.idle_any:
            self.tick = engine.tick
        if self.greenlet is None:
            self.outbox = None
            if self.state is PARKED and self._parked() is PARKED_SHORT:
                self.move(PARKED_SHORT)

    def give_up(self, reason: str) -> None:
        """Close at once, because the client does not take what is due."""
        raise NotImplementedError

    def lost(self, error: OSError) -> None:
        """The client vanished: nothing that is due can reach it."""
        raise NotImplementedError
