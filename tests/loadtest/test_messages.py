"""Messages of the wanted size, and what is said of those that a framing can't carry."""

from __future__ import annotations

import pytest

from loadtest.framing import Chunk, Delimiter, LengthPrefix, Line, ReplyFraming
from loadtest.messages import Template, check_messages, ring_messages


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 6, 32, 300])
def test_messages_have_exactly_the_size_that_is_asked_for(size: int) -> None:
    """Also where that is nothing at all."""
    assert {len(message) for message in ring_messages(size)} == {size}


@pytest.mark.parametrize(
    ("framing", "size", "template"),
    [
        (Line(), 0, None),
        (Line(), 32, "user {user} says {n} at {time} {uuid} {random:5}"),
        (Chunk(), 1, None),
        (Delimiter(b";"), 32, None),
        (LengthPrefix(1), 245, None),
        (LengthPrefix(2), 300, None),
    ],
)
def test_messages_that_fit_are_let_through(framing: ReplyFraming, size: int, template: str | None) -> None:
    """Of every framing, up to the longest message whose confirmation fits."""
    check_messages(framing, size, Template(template) if template else None)


@pytest.mark.parametrize(
    ("framing", "size", "template", "said"),
    [
        (LengthPrefix(1), 300, None, r"framing length: .*\(300 bytes\) or its confirmation is too long"),
        (LengthPrefix(1), 246, None, r"\(246 bytes\) or its confirmation is too long"),
        (Delimiter(b"0"), 32, None, "can't be sent: the message contains its own delimiter"),
        (Delimiter(b"7"), 4, None, "can't be sent: the message contains its own delimiter"),
        (Delimiter(b";"), 32, "a;b", r"b'a;b' \(3 bytes\) can't be sent: the message contains its own"),
        (Delimiter(b"7"), 32, "{n}", "can't be sent: the message contains its own delimiter"),
        (Delimiter(b"v"), 4, None, "the confirmation of .* contains the delimiter"),
        (Chunk(), 0, None, "an empty message can't be sent without a framing"),
    ],
)
def test_what_a_framing_cannot_carry_is_a_sentence(
    framing: ReplyFraming, size: int, template: str | None, said: str
) -> None:
    """Whichever message of a user it is, or only its confirmation."""
    with pytest.raises(ValueError, match=said):
        check_messages(framing, size, Template(template) if template else None)
