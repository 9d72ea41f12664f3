"""The turns of a connection as a conversation: greeting, requests, messages without a reply, and pushes.

How the parts are told apart:

* what the server says before the client has spoken is the **greeting**;
* what the server says after the client is the **reply** to the last thing that the client said. Where the
  client said several things: as many replies as requests are one for each; one reply is the reply to all of
  it; in any other case it is the reply to the last one, and the others were **one-way**;
* what the server says after a pause, when the reply was complete, is a **push**, and so is what comes so
  long after a message that it can't be meant as its reply (:data:`PUSH_SECONDS`,
  :data:`ANSWERED_PUSH_SECONDS`), in a protocol in which not every request has one;
* what the client says to a push at once, with the push's last word as its own (``PING x``, ``PONG x``), is
  its **answer**.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from loadtest.framing import Lines
from loadtest.record.expectation import last_line_pattern
from loadtest.record.framings import DOT, UNTIL_CLOSE, Candidate, Guess, candidate, split_reply
from loadtest.record.secrets import Value, last_word
from loadtest.record.tape import Side, Tape
from loadtest.record.turns import Turn

ANSWERED_PUSH_SECONDS: Final = 1.0
PUSH_SECONDS: Final = 10.0
"""What comes so long after a message is no reply to it, where not every message has one. What the client
answers as it answers pushes needs less. Servers that slow a client down reply seconds late, so it can't be
short."""


@dataclass(slots=True)
class Step:
    """One call of the locustfile."""

    kind: Literal["receive", "request", "send"]
    wire: bytes = b""
    """What the client sent; empty for ``receive``."""
    reply: bytes = b""
    """What the server sent."""
    until: Candidate | None = None
    """How this reply ends, where the framing of the connection does not say so."""
    follows: bool = False
    """Whether a ``receive`` is for one more message that a request was answered with."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A push that begins with ``push`` is answered with ``answer`` and what stood behind ``push``."""

    push: bytes
    answer: bytes
    with_rest: bool


@dataclass(slots=True)
class Conversation:
    """One connection."""

    greeting: list[Step] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    pushes: list[bytes] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    ended_by: Side | None = None

    @property
    def chatty(self) -> bool:
        """Whether the server may speak at any time: it did, or something was sent that has no reply."""
        return bool(self.pushes or self.answers) or any(step.kind == "send" for step in self.steps)


class Reader:
    """Makes one :class:`Conversation` of the turns of one tape."""

    def __init__(self, guess: Guess, values: Sequence[Value], chatty: bool = False) -> None:
        self.guess = guess
        self.values = values
        self.chatty = chatty
        """Whether lines of others may stand between those of a reply: each reply then says how it ends."""

    def read(self, tape: Tape, turns: Sequence[Turn]) -> Conversation:
        """The conversation."""
        conversation = Conversation(ended_by=tape.ended_by)
        rest = list(turns)
        if rest and rest[0].side == "server":
            greeting, pushes = split_reply(rest.pop(0), self.guess.replies)
            conversation.greeting = self._receive(greeting)
            self._push(conversation, pushes)
        while rest:
            asked = rest.pop(0)
            answered = rest.pop(0) if rest else None
            ends = not rest and tape.ended_by == "server"
            late = answered is not None and self._late(asked, answered, rest[0] if rest else None)
            self._exchange(conversation, asked, answered, late, ends)
        return conversation

    def _exchange(
        self, conversation: Conversation, asked: Turn, answered: Turn | None, late: bool, ends: bool
    ) -> None:
        parts = self._parts(asked)
        if conversation.pushes and (answer := _answer(conversation.pushes[-1], parts[0], self.values)):
            if answer not in conversation.answers:
                conversation.answers.append(answer)
            parts.pop(0)
        if answered is None or not parts or late:
            conversation.steps += [Step("send", wire) for part in parts for wire in self._messages(part)]
            if answered is not None:
                self._push(conversation, [part.data for part in answered.parts])
            return
        reply, pushes = split_reply(answered, self.guess.replies)
        conversation.steps += [Step("send", wire) for part in parts[:-1] for wire in self._messages(part)]
        conversation.steps += self._ask(parts[-1], reply, ends)
        self._push(conversation, pushes)

    def _parts(self, asked: Turn) -> list[bytes]:
        """What the client said, cut at its pauses, but not within a message."""
        parts: list[bytes] = []
        waiting = b""
        for part in asked.parts:
            waiting += part.data
            if self.guess.requests.split(waiting) is not None:
                parts.append(waiting)
                waiting = b""
        if waiting:
            parts.append(waiting)
        if self.guess.strict and len(parts) > 1:  # every request has a reply: the pause was within one
            return [b"".join(parts)]
        return parts

    def _late(self, asked: Turn, answered: Turn, after: Turn | None) -> bool:
        """Whether what the server said came too late to be the reply."""
        seconds = answered.parts[0].began - asked.parts[-1].ended
        if self.guess.strict or seconds < ANSWERED_PUSH_SECONDS:
            return False
        last = self.guess.replies.split(answered.data) or [answered.data]
        answers = after is not None and _answer(last[-1], after.parts[0].data, self.values) is not None
        return answers or seconds > PUSH_SECONDS

    def _messages(self, data: bytes) -> list[bytes]:
        """What the client said at once, as it stood on the wire, message by message."""
        return self.guess.requests.cut(data) or [data]

    def _ask(self, data: bytes, reply: bytes, ends: bool) -> list[Step]:
        """The steps for what was said at once and answered with ``reply``."""
        replies = self.guess.replies
        found = replies.split(reply) or []
        wires = self._messages(data)
        if self.guess.strict and len(found) == len(wires) > 1:
            cut = replies.cut(reply) or []
            return [Step("request", wire, each) for wire, each in zip(wires, cut, strict=True)]
        if len(found) == 1 and not (self.chatty and self.guess.lines):
            return [Step("request", data, reply)]
        *before, last = wires if found else [data]
        until, (first, *more) = self._until(reply, ends)
        request = Step("request", last, first, until)
        return [
            *(Step("send", wire) for wire in before),
            request,
            *(Step("receive", reply=each, follows=True) for each in more),
        ]

    def _until(self, reply: bytes, ends: bool) -> tuple[Candidate | None, list[bytes]]:
        """How a reply ends that is not one message of the connection's framing, and the messages to read."""
        wires = self.guess.replies.cut(reply)
        if not wires:
            return (UNTIL_CLOSE if ends else None), [reply]
        if self.guess.lines:
            lines = reply.splitlines()
            if lines[-1] == b"." and len(lines) > 1:
                return DOT, [reply]
            if pattern := last_line_pattern(lines, self.values, 2 if self.chatty else 1):
                return candidate(Lines, last=pattern), [reply]
        return (UNTIL_CLOSE, [reply]) if ends else (None, wires)

    def _receive(self, greeting: bytes) -> list[Step]:
        if len(self.guess.replies.split(greeting) or []) < 2:
            return [Step("receive", reply=greeting)]
        until, wires = self._until(greeting, ends=False)
        return [Step("receive", reply=wire, until=until) for wire in wires]

    def _push(self, conversation: Conversation, pushes: Sequence[bytes]) -> None:
        for push in pushes:
            conversation.pushes += self.guess.replies.split(push) or [push]


def _answer(push: bytes, said: bytes, values: Sequence[Value]) -> Answer | None:
    """How the client answered a push, or None where what it ``said`` has nothing to do with it."""
    message = said.rstrip(b"\r\n")
    if b"\n" in message:
        return None
    if re.fullmatch(rb"[A-Z]+", push) and re.fullmatch(rb"[A-Z]+", message):
        return Answer(push, message, False)
    start, word = last_word(push, values)
    answered, same = last_word(message, values)
    colons = (b":" if word.startswith(b":") else b"", b":" if same.startswith(b":") else b"")
    if not start or not answered or word.removeprefix(b":") != same.removeprefix(b":"):
        return None
    return Answer(start + colons[0], answered + colons[1], True)
