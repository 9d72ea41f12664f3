"""The rules of one client's conversation: what its bytes mean. Pure.

Bytes go in; messages, refusals and the end come out. Nothing here knows a socket, a clock, gevent or a log,
and nothing is remembered: a connection keeps two values, its framing and what :func:`read` said is to be
kept.

========================  ==============================================================================
:func:`read`              what one read completes
:func:`one_line`          the same, quickly, where it is one whole line
:func:`time_is_up`        the same for first bytes that have waited long enough for an LF (``auto``)
:func:`end`               the same at the end of the stream
:func:`join`              replies and pushes as the bytes that go out with one send
========================  ==============================================================================

What is completed is a list. A ``str`` in it (``bytes`` for a service that wants them) is a message; an
:class:`Invalid` is a message that is refused; a :class:`Control` is bytes to send as they are. With the list
comes its :class:`Ending`, if it has one: what follows that is not read.

All lines of a read are decoded and searched for the exit word at once, and one by one only where that finds
something, because a service pays for it with each message.
"""

from __future__ import annotations

from enum import Enum

from chat_gevent.framing import LF, UNDECIDED, Auto, Chunk, Framing, Kept, Line, MessageTooLong, grow
from chat_gevent.telnet import IAC, TELNET, Telnet

Message = str | bytes


class Invalid:
    """A message that is not UTF-8; ``explanation`` is for the person who sent it."""

    __slots__ = ("explanation",)

    def __init__(self, explanation: str) -> None:
        self.explanation = explanation


class Control:
    """Bytes that are due to the client as they are, such as the refusal of an option of telnet."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class Ending(Enum):
    """Why a conversation goes no further."""

    EXIT = "exit"
    TOO_LONG = "message-too-long"


Event = Message | Invalid | Control


class Rules:
    """What a server or service has laid down for all conversations.

    :param limit: longest message without its terminator, in bytes.
    :param text: whether messages are UTF-8 text; else they are bytes, and none of them is invalid.
    :param exit_word: the message that ends the connection, in any case and with white space around it; None
        for no such message.
    """

    __slots__ = ("exit_bytes", "exit_mark", "exit_word", "limit", "text")

    def __init__(self, limit: int, text: bool = True, exit_word: str | None = "/exit") -> None:
        self.limit = limit
        self.text = text
        self.exit_word = exit_word.lower() if exit_word else None
        self.exit_bytes = self.exit_word.encode() if self.exit_word else None
        # What a text must have in it before it is looked at closely: the first character, if it has one case.
        first = self.exit_word[:1] if self.exit_word else ""
        self.exit_mark = first if first.upper() == first else ""


def read(
    framing: Framing, kept: Kept, data: Kept, rules: Rules
) -> tuple[Framing, list[Event], Ending | None, Kept]:
    """What ``data``, one read, completes.

    Returned are the framing that holds from now on, what is complete, how it ends, and what is to be kept.
    """
    if type(framing) is Line and rules.text and len(kept) + len(data) <= rules.limit:  # none is too long
        cut = data.rfind(LF) + 1
        if not cut:
            return framing, [], None, grow(kept, data)
        try:
            text = (bytes(kept) + data[:cut] if kept else data[:cut]).decode()
        except UnicodeDecodeError:
            pass  # one of the lines is not UTF-8, and each is looked at
        else:
            return framing, *_lines(text, rules), bytes(data[cut:])
    elif type(framing) is Auto:
        kept = grow(kept, data)
        if kept[0] == IAC:
            return read(TELNET, b"", kept, rules)
        decided = framing.decide(kept, rules.limit)
        if decided is None:
            return framing, [], None, kept
        return read(decided, b"", kept, rules)
    elif type(framing) is Chunk:
        framing = framing.settle(data)
    answer = framing.answer(kept, data) if isinstance(framing, Telnet) else b""
    too_long = None
    try:
        messages, kept = framing.split(kept, data, rules.limit)
    except MessageTooLong as error:
        messages, kept, too_long = error.complete, b"", Ending.TOO_LONG
    events, ending = _events(messages, rules)
    if answer:
        events.insert(0, Control(answer))
    return framing, events, ending or too_long, kept


def one_line(data: Kept, rules: Rules) -> str | None:
    """The message of a read that is one whole line of text; None where it takes a closer look.

    It is what :func:`read` would say of most reads, at a third of the price. Nothing may be kept from before.
    """
    if not data or data.find(LF) != len(data) - 1 or len(data) > rules.limit:
        return None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    word = rules.exit_word
    if word is not None and rules.exit_mark in text and word in text.lower():
        return None
    return text[:-2] if text.endswith("\r\n") else text[:-1]


def time_is_up(kept: Kept, rules: Rules) -> tuple[Framing, list[Event], Ending | None, Kept]:
    """As :func:`read`, for an ``auto`` stream whose first bytes stayed without an LF."""
    return read(UNDECIDED, b"", kept, rules)


def end(framing: Framing, kept: Kept, rules: Rules) -> tuple[Framing, list[Event], Ending | None]:
    """What the end of the stream completes: bytes that no terminator closed are a last message."""
    events: list[Event] = []
    if type(framing) is Auto and kept:
        framing, events, ending, kept = time_is_up(kept, rules)
        if ending is not None:
            return framing, events, ending
    try:
        messages = framing.finish(kept, rules.limit)
    except MessageTooLong:
        return framing, events, Ending.TOO_LONG
    last, ending = _events(messages, rules)
    return framing, events + last, ending


def _lines(text: str, rules: Rules) -> tuple[list[Event], Ending | None]:
    """All lines of a text, which ends with LF, and how they end."""
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    lines = text.split("\n")
    del lines[-1]  # behind the last LF
    word = rules.exit_word
    if word is not None and rules.exit_mark in text and word in text.lower():
        for index, line in enumerate(lines):
            if line.strip().lower() == word:
                del lines[index:]
                return lines, Ending.EXIT  # type: ignore[return-value]
    return lines, None  # type: ignore[return-value]


def _events(messages: list[bytes], rules: Rules) -> tuple[list[Event], Ending | None]:
    """Look at one message after the other."""
    events: list[Event] = []
    for message in messages:
        if not rules.text:
            if rules.exit_bytes is not None and message.strip().lower() == rules.exit_bytes:
                return events, Ending.EXIT
            events.append(message)
            continue
        try:
            text = message.decode()
        except UnicodeDecodeError as error:
            events.append(Invalid(f"byte {error.start} of the message: {error.reason}"))
            continue
        if rules.exit_word is not None and text.strip().lower() == rules.exit_word:
            return events, Ending.EXIT
        events.append(text)
    return events, None


def join(framing: Framing, due: list[str | bytes]) -> bytes:
    """What is due to a client, in order, as bytes to send.

    A ``str`` is a reply or push that is still to be encoded and framed; ``bytes`` have their framing already.
    Raises UnicodeEncodeError: a text has lone surrogates, which UTF-8 has no form for.
    """
    if type(framing) is Line and due:
        try:
            return ("\n".join(due) + "\n").encode()  # type: ignore[arg-type]  # TypeError where some are bytes
        except TypeError:
            pass
    return b"".join([each if isinstance(each, bytes) else framing.encode(each.encode()) for each in due])
