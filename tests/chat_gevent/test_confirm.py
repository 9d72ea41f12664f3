"""Messages to replies, and the short way for whole reads, which must give the same bytes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chat_gevent.confirm import ErrorCode, confirm, confirm_lines, error_reply, is_exit
from chat_gevent.framing import split_lines


class NoClient:
    """A client that nobody should touch."""

    address: Any = None
    state: Any = None

    def close(self) -> None:
        """Fail."""
        raise AssertionError("the confirmation closed its client")


pieces = st.sampled_from([*"ab é🐍/\rexitEXIT", "/exit", "/eXIT", "\r\r"])
text = st.lists(pieces, max_size=12).map("".join)
lines = st.lists(text, min_size=1, max_size=8).map(lambda each: "".join(f"{one}\n" for one in each).encode())


def one_at_a_time(data: bytes) -> bytes:
    """The confirmations of ``data``'s lines by the path that looks at each message."""
    messages, rest = split_lines(b"", data)
    assert rest == b""
    return b"".join(confirm(message.decode(), NoClient()).encode() + b"\n" for message in messages)


@pytest.mark.parametrize(
    "message", ["", "a", " spaces kept \t", "é🐍", "Error: not really", "\0\x7f", "a\rb"]
)
def test_a_confirmation_is_the_message_after_received(message: str) -> None:
    """The text comes back exactly, after ``Received: ``."""
    assert confirm(message, NoClient()) == "Received: " + message


@given(lines | st.binary(max_size=40).map(lambda b: b + b"\n"))
@example(b"\n")
@example(b"\n\n")
@example(b"a\nb\n")
@example(b"\xc3\n\xa9\n")  # bytes that would be UTF-8 if the LF between them were not there
@example("zeile\u2028\u0085\v\f\x1c\n".encode())  # other line ends of Unicode end no message
def test_whole_reads_are_confirmed_like_single_messages(data: bytes) -> None:
    """The short way either declines or gives, byte for byte, what message after message gives."""
    reply = confirm_lines(data)
    if reply is not None:
        assert reply == one_at_a_time(data)


@given(lines)
def test_the_short_way_declines_what_needs_a_look(data: bytes) -> None:
    """A possible ``/exit`` is left to the other path; other text, with slashes and CR LF, is not."""
    assert (confirm_lines(data) is None) == (b"/exit" in data.lower())


@given(st.binary(max_size=30))
def test_the_short_way_declines_what_is_not_utf8(data: bytes) -> None:
    """It confirms nothing that is not UTF-8."""
    data += b"\n"
    try:
        data.decode()
    except UnicodeDecodeError:
        assert confirm_lines(data) is None


@pytest.mark.parametrize(
    "message", ["/exit", "/EXIT", "/eXiT", "  /exit", "/exit \t", "\t/Exit\r", "\n/exit\n"]
)
def test_exit_in_any_case_with_space_around(message: str) -> None:
    """Case and white space around it don't matter."""
    assert is_exit(message)


@pytest.mark.parametrize(
    "message", ["", "exit", "/exit now", "/ exit", "say /exit", "//exit", "/exit/", "/exıt"]
)
def test_other_words_are_no_exit(message: str) -> None:
    """Only the one word, alone, ends the connection."""
    assert not is_exit(message)


@pytest.mark.parametrize("code", list(ErrorCode))
def test_an_error_is_told_apart_by_its_first_word(code: ErrorCode) -> None:
    """``Error: <code>: <explanation>`` with the code's own word, and no terminator."""
    assert error_reply(code, "why – so") == f"Error: {code.value}: why – so".encode()


def test_the_codes_are_those_of_the_protocol() -> None:
    """The words that go over the wire are a promise to clients."""
    assert {code.value for code in ErrorCode} == {
        "invalid-utf8",
        "message-too-long",
        "server-full",
        "address-full",
        "idle-timeout",
        "handler-failed",
        "shutting-down",
    }
