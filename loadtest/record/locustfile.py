"""The Python text of a locustfile that repeats recorded conversations.

A greeting goes to ``on_connect``, and so does what follows it up to the last masked value, because that
is a login. The rest of each conversation is a task; the same conversation recorded several times is one
task that is run as much more often. Where a conversation can't be repeated on its connection, the task ends
with ``close``, and the next request connects anew: that is where the server greets or closes, and where
something was said that had no reply. A request that the framing of the replies could not have made is sent
as it is, as ``Wire``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from loadtest.record.conversation import Answer, Conversation, Step
from loadtest.record.expectation import Expectation, expectation_of
from loadtest.record.framings import RESP, Guess, raw, resp_words
from loadtest.record.secrets import MASK, UNIQUE, Value, hidden, parts_of

MOST_TASKS: Final = 20
"""Different conversations that are written; of more, those that were recorded first."""

MOST_STEPS: Final = 500
"""Steps of a conversation that are written."""

MOST_OCCURRENCES: Final = 50
"""Different replies to a request that are compared with each other."""

LINE_LENGTH: Final = 110
"""Longest line, but for a single long argument."""

NAME: Final = re.compile(rb"[A-Za-z][A-Za-z0-9_.-]{0,19}")
"""What the name of a request is made of: the beginning of its message."""

OWN_NAMES: Final = ("GREETING", "REPLY", "REQUEST", "text")
"""Names of steps that have nothing of what was recorded."""

MOST_TERMS: Final = 50
"""Most byte strings that are added up; Python can not read a sum of thousands."""


class Writer:
    """Writes one locustfile."""

    def __init__(
        self, host: str, guess: Guess, conversations: Sequence[Conversation], values: Sequence[Value]
    ) -> None:
        self.host = host
        self.guess = guess
        self.values = values
        self.masked = [value for value in values if value.kind == MASK]
        self.conversations = conversations
        self.chatty = any(each.chatty for each in conversations)
        self.keeps = (
            guess.strict
            and not self.chatty
            and not any(each.greeting or each.ended_by == "server" for each in conversations)
        )
        self.framing = guess.replies
        self.replies: dict[tuple[bytes, str], dict[bytes, None]] = defaultdict(dict)
        self.expectations: dict[tuple[bytes, str], Expectation] = {}
        for each in conversations:
            for step in each.greeting + each.steps:
                if step.kind != "send" and len(seen := self.replies[_key(step)]) < MOST_OCCURRENCES:
                    seen[self._message(step)] = None
        self.names: set[str] = {self.framing.text.split("(")[0]}
        self.used: set[str] = set()

    def text(self) -> str:
        """The file."""
        tasks: dict[tuple[tuple[str, bytes], ...], list[Conversation]] = {}
        for each in self.conversations:
            if each.steps or each.greeting:
                tasks.setdefault(tuple((step.kind, step.wire) for step in each.steps), []).append(each)
        groups = list(tasks.values())
        login = self._login(groups)
        body = self._user(groups[0][0].greeting + login)
        for number, group in enumerate(groups[:MOST_TASKS], 1):
            body += self._task(number, group, group[0].steps[len(login) :])
        if len(groups) > MOST_TASKS:
            body += [
                "",
                f"    # {len(groups) - MOST_TASKS} more conversations were recorded and are not written.",
            ]
        body += self._on_push([answer for each in self.conversations for answer in each.answers])
        return "\n".join(self._head() + body) + "\n"

    # -- the parts of the file ---------------------------------------------------------------------

    def _head(self) -> list[str]:
        lines = [
            '"""Recorded by ``python -m loadtest record``; what a reply must be is guessed, so read it."""',
            "",
        ]
        masked = sorted(
            {value.name for value in self.values if value.kind == MASK and value.name in self.used}
        )
        standard = [name for name, needed in (("os", bool(masked)), ("re", "re" in self.used)) if needed]
        lines += [f"import {name}" for name in standard] + [""] * bool(standard)
        lines += ["from locust import task", ""]
        lines += [f"from loadtest.framing import {', '.join(sorted(self.names))}"]
        lines += ["from loadtest.tcp_user import TcpUser", ""]
        lines += [f'{name} = os.environ["{name}"]  # was masked' for name in masked]
        return lines + [""] * (1 + bool(masked))

    def _user(self, steps: Sequence[Step]) -> list[str]:
        lines = [
            "class RecordedUser(TcpUser):",
            f"    host = {self._text(parts_of(self.host.encode(), self.masked))}",
            f"    framing = {self.framing.text}",
        ]
        first = []
        if unique := [value for value in self.values if value.kind == UNIQUE]:
            lines += ["", "    def on_start(self):"]
            for value in sorted(unique, key=lambda value: value.name):
                lines.append(f'        {value.name} = f"{self._inside(value)}{{self.number}}"')
            lines.append("        super().on_start()")
        if self.chatty:
            first = ["        self.client.push(self.on_push)"]
        if calls := [*first, *(line for step in steps for line in self._call(step))]:
            lines += ["", "    def on_connect(self):", *calls]
        return lines

    def _task(self, number: int, group: Sequence[Conversation], steps: Sequence[Step]) -> list[str]:
        weight = f"({len(group)})" if len(group) > 1 else ""
        lines = ["", f"    @task{weight}", f"    def conversation_{number}(self):"]
        for step in steps[:MOST_STEPS]:
            lines += self._call(step)
        if len(steps) > MOST_STEPS:
            lines.append(f"        # {len(steps) - MOST_STEPS} more steps were recorded and are not written.")
        if not self.keeps:
            lines.append(
                "        self.client.close()  # the next task connects anew, as the recorded client did"
            )
        return lines

    def _on_push(self, answers: Sequence[Answer]) -> list[str]:
        if not self.chatty:
            return []
        lines = ["", "    def on_push(self, message):"]
        lines.append('        """Called with what the server says unasked; what it returns is sent."""')
        for answer in dict.fromkeys(answers):
            push, said = (
                self._text(parts_of(data, self.values), text=False) for data in (answer.push, answer.answer)
            )
            lines.append(f"        if message.startswith({push}):")
            rest = f" + message.removeprefix({push})" if answer.with_rest else ""
            lines.append(f"            return {said}{rest}")
        return [*lines, "        return None"]

    def _call(self, step: Step) -> list[str]:
        """The lines for one step: one, unless it would be too long."""
        words = []
        if step.kind != "receive":
            words.append(self._request(step.wire))
        words.append(f'name="{_name(step, self.values)}"')
        comment: list[str] = []
        if step.kind != "send":
            if step.until:
                words.append(f"until={step.until.text}")
                self.names.add(step.until.text.split("(")[0])
            if not (self.chatty and step.until):  # lines of others may stand between those of the reply
                expectation = self._expectation(step)
                words.append(f"expect={self._expect(expectation)}")
                comment = [f"        # {expectation.comment}"] if expectation.comment else []
        line = f"        self.client.{step.kind}({', '.join(words)})"
        if len(line) <= LINE_LENGTH:
            return [*comment, line]
        return [
            *comment,
            f"        self.client.{step.kind}(",
            *(f"            {word}," for word in words),
            "        )",
        ]

    def _request(self, wire: bytes) -> str:
        """The message that becomes ``wire``, as Python text."""
        if self.framing is RESP and (words := resp_words(wire)):
            if not all(word and _plain(word) and len(word.split()) == 1 for word in words):
                return f"Resp.command({', '.join(self._text(parts_of(word, self.values)) for word in words)})"
            return self._text(parts_of(b" ".join(words), self.values))
        message = self.framing.message_of(wire)
        pieces = parts_of(wire if message is None else message, self.values)
        if message is not None:
            return self._text(pieces)
        self.names.add("Wire")
        return f"Wire({self._text(pieces, text=False)})"

    def _text(self, pieces: Sequence[bytes | Value], text: bool = True) -> str:
        """Pieces as one expression: a string where that is possible and ``text``, else bytes."""
        self.used.update(piece.name for piece in pieces if isinstance(piece, Value))
        if text and all(isinstance(piece, Value) or _plain(piece) for piece in pieces):
            if len(pieces) <= 1 and all(isinstance(piece, bytes) for piece in pieces):
                return raw(b"".join(pieces).decode())  # type: ignore[arg-type]
            return 'f"' + "".join(_piece(piece) for piece in pieces) + '"'
        words = [f"{each.name}.encode()" if isinstance(each, Value) else raw(each) for each in pieces]
        if len(words) > MOST_TERMS:
            return f'b"".join(({", ".join(words)}))'
        return " + ".join(words) or 'b""'

    def _inside(self, value: Value) -> str:
        """What was recorded of a unique value, for within an f-string; a masked value may be a part of it."""
        pieces = parts_of(value.data, self.masked)
        self.used.update(piece.name for piece in pieces if isinstance(piece, Value))
        return "".join(map(_piece, pieces))

    def _expect(self, expectation: Expectation) -> str:
        if expectation.literal is not None:
            return raw(expectation.literal)
        self.used.add("re")
        pattern = b"^" + expectation.pattern + (rb"\Z" if expectation.whole else b"")
        return f"re.compile({raw(pattern)})"

    def _expectation(self, step: Step) -> Expectation:
        key = _key(step)
        if key not in self.expectations:
            self.expectations[key] = expectation_of(list(self.replies[key]), self.values)
        return self.expectations[key]

    def _message(self, step: Step) -> bytes:
        """What ``expect`` will be compared with."""
        messages = (step.until or self.guess.replies).split(step.reply)
        return messages[0] if messages else step.reply

    def _login(self, groups: Sequence[Sequence[Conversation]]) -> list[Step]:
        """The steps up to the last one with a masked value, if all conversations begin so and go on."""
        if not self.keeps:
            return []
        first = groups[0][0].steps
        masked = [
            number for number, step in enumerate(first, 1) if hidden(step.wire, self.values) != step.wire
        ]
        login = first[: max(masked, default=0)]
        wires = [step.wire for step in login]
        for conversation, *_ in groups:
            if (
                len(conversation.steps) <= len(login)
                or [s.wire for s in conversation.steps[: len(login)]] != wires
            ):
                return []
        return login


def _key(step: Step) -> tuple[bytes, str]:
    return step.wire, step.until.text if step.until else ""


def _name(step: Step, values: Sequence[Value]) -> str:
    """A short name of a step for reports: the first word of what is sent, without what is masked."""
    if step.kind == "receive":
        return "REPLY" if step.follows else "GREETING"
    lines = hidden(step.wire, values).splitlines()
    if words := resp_words(step.wire):
        lines = [hidden(words[0], values)]
    elif len(lines) > 2:
        return "text"
    match = NAME.match(lines[0] if lines else b"")
    return match[0].decode().upper() if match else "REQUEST"


def _plain(data: bytes) -> bool:
    try:
        return data.decode().isprintable()
    except UnicodeDecodeError:
        return False


def _piece(piece: bytes | Value) -> str:
    return f"{{{piece.name}}}" if isinstance(piece, Value) else _braces(piece)


def _braces(data: bytes) -> str:
    """Text for within an f-string in double quotes; bytes that are no UTF-8 are replaced."""
    return "".join(map(_in_f_string, data.decode(errors="replace")))


def _in_f_string(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character in "{}":
        return 2 * character
    return character if character.isprintable() else repr(character)[1:-1]
