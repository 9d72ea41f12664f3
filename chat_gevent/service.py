"""What people write on top of the server: a handler, or a service; and the narrow client that it is given.

A **handler** is a function ``(message, client) -> reply or None``. A **service** is an object whose methods
are hooks; all are optional. Both may block as any gevent code may, anywhere but in ``error_reply``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final, Generic, TypeVar

from chat_gevent.confirm import Handler, confirm, error_text
from chat_gevent.framing import Framing
from chat_gevent.identity import Identity, identify

State = TypeVar("State")

Reply = str | bytes

NO_GROUPS: Final[frozenset[Any]] = frozenset()


class Client(Generic[State]):
    """One client of a server, as its handler and hooks know it: the same object in every hook.

    It can be kept in sets and dictionaries, and used from any greenlet. Nothing that is done to it raises
    because of what the client does: once it is gone, :attr:`closed` is true and :meth:`send` returns False.
    """

    __slots__ = ("_connected", "_connection", "_groups", "_last", "_paid_until", "_queued", "id", "state")

    def __init__(self, connection: Any, number: int) -> None:
        self._connection = connection
        self._connected = False  # whether the service was told of it, and is to be told of its end
        self._paid_until = 0.0  # of message_rate: when all messages so far are paid for
        self._queued = 0  # bytes of pushes that it has not taken
        self._last: bytes | None = None  # what it is sent before the close that the service has asked for
        self._groups: set[Any] | frozenset[Any] = NO_GROUPS
        self.id = number
        """A number that no other client of this process has."""
        self.state: State = None  # type: ignore[assignment]
        """The handler's own, for this client; None at first."""

    def __repr__(self) -> str:
        return f"<Client {self.id}{' closed' if self.closed else ''}>"

    @property
    def address(self) -> Any:
        """The peer's ``(host, port)``, behind a proxy the client's; a UNIX socket's name; None once gone."""
        return self._connection.address

    @property
    def identity(self) -> Identity:
        """Its verified certificate, UNIX credentials, and what a trusted proxy says of it.

        Asked of TLS and the kernel at each call. All of it is None once the client is gone: a service that
        needs it in ``disconnected`` keeps it in :attr:`state`.
        """
        return identify(self._connection)

    @property
    def closed(self) -> bool:
        """Whether the client is gone, or about to be: nothing that is sent to it now would reach it."""
        closed: bool = self._connection.is_leaving
        return closed

    def send(self, message: Reply) -> bool:
        """Send the client a message unasked. Never blocks.

        It leaves with whatever else is due to the client at the end of the engine's turn, in the order of the
        calls. Returns False where it does not: the client is gone (:attr:`closed`), or what it has not taken
        yet is as much as ``slow_consumer = "drop-newest"`` allows. Raises TypeError, UnicodeEncodeError:
        ``message`` is none.
        """
        sent: bool = self._connection.push(message)
        return sent

    def close(self, last: Reply | None = None) -> None:
        """End the connection once all that is due to the client is sent, and ``last``. Never blocks.

        What a hook of the client's is about to return is due as well.
        """
        self._connection.close_by_service(last)

    def touch(self) -> None:
        """Count this moment as activity of the client, for ``idle_timeout``."""
        self._connection.touch()


class Service:
    """Base class of services: hooks that the server calls, and what it asks to know. All have defaults.

    A class that overrides :meth:`connected` or :meth:`disconnected` is called for each client; others pay
    nothing for it.
    """

    framing: ClassVar[Framing | None] = None
    """How messages are told apart; None: as the settings say, ``line`` unless they do."""

    text: ClassVar[bool] = True
    """Whether messages are ``str``; else they are ``bytes``."""

    exit_word: ClassVar[str | None] = "/exit"
    """The message that ends the connection; None: there is none."""

    def started(self, server: Any) -> None:
        """The server is about to serve: once a process."""

    def connected(self, client: Client[Any]) -> Reply | None:
        """A client has come; what is returned is sent to it. Raise :class:`Refuse` to turn it away."""
        return None

    def message(self, message: Any, client: Client[Any]) -> Reply | None:
        """Answer a message; None for no reply."""
        return None

    def disconnected(self, client: Client[Any], reason: str) -> None:
        """A client is gone, for whatever reason: once for each :meth:`connected` that did not refuse it."""

    def stopping(self, server: Any) -> None:
        """The server is about to stop: clients are still there, and can be sent to."""

    def error_reply(self, code: str, explanation: str) -> Reply | None:
        """What a client is told of an error; None: nothing. ``code`` is one of the protocol's.

        This is the one hook that must not block: time-outs and refusals are told from the event loop.
        """
        return error_text(code, explanation) if self.text else error_text(code, explanation).encode()


class HandlerService(Service):
    """A service made of a handler."""

    def __init__(self, handler: Handler) -> None:
        self.message = handler  # type: ignore[method-assign, assignment]


Answers = Handler | Service | type[Service]
"""What a server can be given to answer with; a class is called, without arguments."""


def as_service(answers: Answers | None) -> Service:
    """The service that ``answers`` is or makes; the confirmation where it is None. Raises TypeError."""
    if isinstance(answers, Service):
        return answers
    if isinstance(answers, type) and issubclass(answers, Service):
        return answers()
    if answers is None:
        return HandlerService(confirm)
    if callable(answers) and not isinstance(answers, type):
        return HandlerService(answers)
    raise TypeError(f"neither a handler nor a service: {answers!r}")


def overrides(service: Service, hook: str) -> bool:
    """Whether ``service`` has a ``hook`` of its own."""
    mine: Callable[..., Any] = getattr(type(service), hook)
    return mine is not getattr(Service, hook)
