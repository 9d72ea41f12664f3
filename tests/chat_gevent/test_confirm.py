"""Messages to replies, and the short way for whole reads, which must give the same bytes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chat_gevent.confirm import ErrorCode, confirm, error_text, whole
from chat_gevent.conversation import Rules, join, read
from chat_gevent.framing import LINE, Kept


class NoClient:
    """A client that nobody should touch."""

    def __getattr__(self, name: str) -> Any:
        """Fail."""
        raise AssertionError(f"the confirmation looked at its client's {name}")


CLIENT = NoClient()
pieces = st.sampled_from(
    [*"ab é🐍/\rexitEXIT\n\n", "/exit", "\n/eXIT\n", "\r\r", "\r\n", "\u2028\x85\v\f\x1c"]
)
text = st.lists(pieces, max_size=20).map("".join).map(str.encode)
beginnings = st.lists(pieces, max_size=5).map(lambda each: "".join(each).replace("\n", "").encode())


def one_at_a_time(kept: Kept, data: bytes, limit: int) -> tuple[bytes, bytes, int] | None:
    """The same by the way that looks at each message; None where not all of them are just confirmed."""
    _, events, ending, rest = read(LINE, kept, data, Rules(limit))
    messages = [event for event in events if isinstance(event, str)]
    if ending is not None or len(messages) < len(events) or not events:
        return None
    return join(LINE, [confirm(message, CLIENT) for message in messages]), bytes(rest), len(messages)


@pytest.mark.parametrize(
    "message", ["", "a", " spaces kept \t", "é🐍", "Error: not really", "\0\x7f", "a\rb"]
)
def test_a_confirmation_is_the_message_after_received(message: str) -> None:
    """The text comes back exactly, after ``Received: ``."""
    assert confirm(message, CLIENT) == "Received: " + message


@given(beginnings | st.binary(max_size=5).map(lambda b: b.replace(b"\n", b"")), text | st.binary(max_size=40))
@example(b"", b"\n")
@example(b"", b"\n\n")
@example(b"", b"a\nb\nc")
@example(b"a\r", b"\nb\r\n\r\r\n\r")
@example(b"", b"\xc3\n\xa9\n")  # bytes that would be UTF-8 if the LF between them were not there
@example(b"\xc3", b"\xa9\n\xc3")  # a character of two reads, and half of one that waits
@example(b"/ex", b"it\na\n")
@example(b"", "zeile\u2028\u0085\v\f\x1c\n".encode())  # other line ends of Unicode end no message
@pytest.mark.parametrize("limit", [65_536, 9])
def test_whole_reads_are_confirmed_like_single_messages(limit: int, kept: bytes, data: bytes) -> None:
    """The short way either declines or gives, byte for byte, what message after message gives."""
    for before in (kept, bytearray(kept)):
        found = whole(before, data, limit)
        if found is not None:
            assert found == one_at_a_time(kept, data, limit)
        assert before == kept


@given(beginnings, text)
def test_the_short_way_declines_only_what_needs_a_look(kept: bytes, data: bytes) -> None:
    """A possible ``/exit`` is left to the other way; other text, with slashes and CR LF, is not."""
    complete = kept + data[: data.rfind(b"\n") + 1]
    declined = b"/exit" in complete.lower() or b"\n" not in data
    assert (whole(kept, data, 65_536) is None) == declined


@pytest.mark.parametrize("exit_line", ["/exit", "/EXIT", " /eXiT\t", "/exit\r", "say /exit"])
@pytest.mark.parametrize("place", range(1, 5))
def test_no_exit_gets_by(exit_line: str, place: int) -> None:
    """In any case, among other lines, and begun in an earlier read."""
    data = exit_line.encode()
    assert whole(b"", b"a\n" + data + b"\nb\n", 100) is None
    assert whole(data[:place], data[place:] + b"\n", 100) is None


def test_an_exit_that_is_not_complete_waits() -> None:
    """What has no LF yet is kept, whatever it will be."""
    assert whole(b"", b"a\n/exit", 100) == (b"Received: a\n", b"/exit", 1)


def test_the_short_way_declines_what_may_be_too_long() -> None:
    """It takes as many bytes in all as one message may have, so none of the lines is too long."""
    assert whole(b"abcd", b"ef\ng", 8) == (b"Received: abcdef\n", b"g", 1)
    assert whole(b"abcd", b"ef\ngh", 8) is None


@given(st.binary(max_size=30))
def test_the_short_way_declines_what_is_not_utf8(data: bytes) -> None:
    """It confirms nothing that is not UTF-8."""
    data += b"\n"
    try:
        data.decode()
    except UnicodeDecodeError:
        assert whole(b"", data, 100) is None


@pytest.mark.parametrize("code", list(ErrorCode))
def test_an_error_is_told_apart_by_its_first_word(code: ErrorCode) -> None:
    """``Error: <code>: <explanation>`` with the code's own word, and no terminator."""
    assert error_text(code, "why – so") == f"Error: {code.value}: why – so"


def test_the_codes_are_those_of_the_protocol() -> None:
    """The words that go over the wire are a promise to clients."""
    assert {code.value for code in ErrorCode} == {
        "invalid-utf8",
        "message-too-long",
        "server-full",
        "address-full",
        "idle-timeout",
        "server-busy",
        "refused",
        "handler-failed",
        "shutting-down",
    }
