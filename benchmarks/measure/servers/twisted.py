"""Twisted: its LineOnlyReceiver, on the epoll reactor, which is the default on Linux."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure
from zope.interface import implementer  # type: ignore[import-untyped]

from benchmarks.measure.servers.common import MAX_MESSAGE_BYTES, TOO_LONG, options, ready, reply_to


@implementer(IHalfCloseableProtocol)
class Confirm(LineOnlyReceiver):
    """One client."""

    transport: Any
    delimiter = b"\n"
    MAX_LENGTH = MAX_MESSAGE_BYTES + 1

    def connectionMade(self) -> None:
        """Send small replies at once."""
        self.transport.setTcpNoDelay(True)

    def lineReceived(self, line: bytes) -> None:
        """Confirm one line."""
        reply = TOO_LONG if len(line) > MAX_MESSAGE_BYTES + line.endswith(b"\r") else reply_to(line)
        if reply is not None:
            self.transport.write(reply)
        if reply is None or reply is TOO_LONG:
            self.transport.loseConnection()

    def lineLengthExceeded(self, line: bytes) -> None:
        """Refuse what has no end."""
        self.transport.write(TOO_LONG)
        self.transport.loseConnection()

    def readConnectionLost(self) -> None:
        """The client has closed its side: bytes that no LF closed are a last message."""
        if self._buffer:
            self.transport.write(reply_to(self._buffer) or b"")
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Nobody reads the replies any more."""
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Nothing is kept for a client that has gone."""


def main() -> None:
    """Serve until the process is ended."""
    given = options(__doc__)
    reactor: Any = installed_reactor  # a module's attribute that its own types leave open
    port = reactor.listenTCP(given.port, Factory.forProtocol(Confirm), interface=given.host, backlog=4096)
    address = port.getHost()
    ready((address.host, address.port))
    reactor.run()


if __name__ == "__main__":
    main()
