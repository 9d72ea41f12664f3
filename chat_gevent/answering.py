"""What a connection answers: from what was read to what is due.

:class:`Answering` asks the conversation (:mod:`chat_gevent.conversation`) what a read completes, has the
service answer each message, and sends the replies. All of it runs in a greenlet that is leased to the
connection, so a service may block. A hook that raises has failed by itself: its client is told, and the
server goes on.
"""

from __future__ import annotations

from typing import Any, Final

from chat_gevent.confirm import ErrorCode, whole
from chat_gevent.conversation import Control, Ending, Event, end, read, time_is_up
from chat_gevent.errors import Closed, Refuse
from chat_gevent.framing import Auto, Kept, Line
from chat_gevent.lifecycle import BY_SERVICE, Lifecycle
from chat_gevent.service import Client
from chat_gevent.state import BUSY, CLOSING

READ_BYTES: Final = 16_384
"""Most bytes taken with one read. What is due to a client that reads nothing is what one read asked for."""

REPLIES_PER_SEND: Final = 1024
"""Most replies gathered for one send: what is held for a client that doesn't read is held for long."""


class Answering(Lifecycle):
    """The part of a connection that talks."""

    __slots__ = ()

    def _greet(self) -> None:
        """Tell the service of the client."""
        core = self.core
        client = self.known_client()
        try:
            client._connected = True
            greeting = core.service.connected(client)
            core.broadcasts.catch_up(self)
            if greeting is not None:
                self._due().append(self._framed(greeting))
        except Refuse as refusal:
            client._connected = False
            core.registry.refused[ErrorCode.REFUSED] += 1
            self.finish(
                ErrorCode.REFUSED, ErrorCode.REFUSED, str(refusal) or "the service does not admit you"
            )
        except BaseException:  # noqa: BLE001 - what a hook raises is its own failure, not the server's
            self._service_failed("connected")
            self.finish(ErrorCode.HANDLER_FAILED, ErrorCode.HANDLER_FAILED, "the server could not admit you")
        if self.outbox:
            self.send_due()

    def _take(self, data: Kept) -> None:
        """Answer what one read completes."""
        core = self.core
        if self.leaving == BY_SERVICE:  # as of what follows ``/exit``
            return
        if (
            core.confirms
            and type(self.framing) is Line
            and (found := whole(self.kept, data, core.limit)) is not None
        ):
            held = len(self.kept)
            reply, self.kept, count = found
            if held or self.kept:
                core.input.hold(len(self.kept) - held, self)
            self.messages += count
            self.tick = core.engine.tick
            self._due().append(reply)
            self.send_due()
            return
        events, ending = self._split(data)
        if type(self.framing) is Auto:
            events, ending = self._decide()
        if events or ending is not None:
            self._answer(events, ending)

    def _decide(self) -> tuple[list[Event], Ending | None]:
        """Settle ``auto``: wait for an LF for as long as it may come; returns what has come meanwhile.

        Who is asked to leave is not waited for.
        """
        core = self.core
        self.tick = core.engine.tick
        began = core.system.monotonic()
        while type(self.framing) is Auto and not self.leaving:
            more = self.read(READ_BYTES)
            left = began + self.framing.seconds(self.kept) - core.system.monotonic()
            if more is None:  # not before: epoll tells only of what comes from now on
                if left <= 0:
                    break
                self.wait_readable(left)
                if self.state >= CLOSING:
                    raise Closed
                continue
            if not more:
                break  # the end shows again with the next read
            self.received += len(more)
            events, ending = self._split(more)
            if type(self.framing) is not Auto:
                return events, ending
            if left <= 0:
                break
            core.system.sleep(0)  # others have their turn
        held = len(self.kept)
        self.framing, events, ending, self.kept = time_is_up(self.kept, core.rules)
        core.input.hold(len(self.kept) - held, self)
        return events, ending

    def _split(self, data: Kept) -> tuple[list[Event], Ending | None]:
        """What one read completes; its rest is kept, and counts against ``input_total_bytes``."""
        core = self.core
        held = len(self.kept)  # now: it may grow in its place
        self.framing, events, ending, self.kept = read(self.framing, self.kept, data, core.rules)
        if held or self.kept:
            core.input.hold(len(self.kept) - held, self)
        return events, ending

    def _end_of_input(self) -> None:
        kept, self.kept = self.kept, b""
        self.core.input.hold(-len(kept))
        if kept and not (self.encrypted and self.socket.truncated):
            self.framing, events, ending = end(self.framing, kept, self.core.rules)
            self._answer(events, ending)
        elif kept:
            self.reason = "truncated"  # somebody without the keys may have cut it off: it is not handled
        if self.state is BUSY:
            self.core.broadcasts.catch_up(self)
            self._say_last()
            if self.outbox:  # pushes that it has not taken; it may have ended its own output only
                self.send_due()
            if self.reason == "killed":
                self.reason = "eof"
            if self.encrypted:
                self._end_output()  # TLS wants its own notice of the end; without it a client sees an error
        self.cut(self.reason)

    def _answer(self, events: list[Event], ending: Ending | None) -> None:
        """Have each message answered, and send the replies."""
        core = self.core
        handler, rate, kind = core.message, core.settings.message_rate, core.kind
        client = self.client or self.known_client()
        outbox = self.outbox
        if outbox is None:
            outbox = self.outbox = []
        now, broadcasts = core.engine.now, core.broadcasts.running
        began = now()
        handled = 0
        for event in events:
            if rate and type(event) is not Control:
                self._pay(client, rate)
            if type(event) is kind:
                try:
                    reply = handler(event, client)
                    if broadcasts:
                        core.broadcasts.catch_up(self)
                    if type(reply) is str is kind:
                        outbox.append(reply)  # it is framed and encoded with the others
                    elif reply is not None:
                        outbox.append(self._framed(reply))
                    handled += 1
                except BaseException:  # noqa: BLE001 - whatever a handler raises is its own failure
                    self._service_failed("message")
                    self._tell_error(ErrorCode.HANDLER_FAILED, "the server could not handle the message")
            elif type(event) is Control:
                outbox.append(event.data)
            else:
                self._tell_error(ErrorCode.INVALID_UTF8, event.explanation)  # type: ignore[union-attr]
            if now() != began or len(outbox) >= REPLIES_PER_SEND or self.leaving == BY_SERVICE:
                # It has blocked, and what is due is kept no longer; or enough is due.
                self.messages += handled
                handled = 0
                self.send_due()
                if self.leaving == BY_SERVICE:
                    break
                began = now()
        self.messages += handled
        if events:
            self.tick = core.engine.tick
        if self.state is CLOSING:
            return
        if ending is None and not self.leaving:
            if outbox and not self.flush():
                self.send_due()
        elif self.leaving == BY_SERVICE:
            self.finish(BY_SERVICE)
        elif ending is Ending.EXIT:
            self.finish("exit")
        elif ending is Ending.TOO_LONG:
            explanation = f"a message is limited to {core.limit} bytes"
            self.finish(ErrorCode.MESSAGE_TOO_LONG, ErrorCode.MESSAGE_TOO_LONG, explanation)
        else:
            self.send_due()

    def _pay(self, client: Client[Any], rate: float) -> None:
        """Token bucket, one second deep: wait until the client may send a message again."""
        core = self.core
        now = core.system.monotonic()
        ahead = client._paid_until - now - 1
        if ahead > 0 and not core.draining.is_set():
            self.send_due()
            core.draining.wait(ahead)
            now = core.system.monotonic()
        client._paid_until = max(client._paid_until, now) + 1 / rate
