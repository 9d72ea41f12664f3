"""What is held back at the end of a piece of UTF-8 text: the beginning of one character, and nothing else."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from chat_gevent.utf8 import unfinished_character

# Every proper beginning of an encoded character: one code point of each 61 meets each prefix of 64.
BEGINNINGS = {
    encoded[:size]
    for point in (*range(0x80, 0x800, 7), 0x7FF, *range(0x800, 0x110000, 61))
    if not 0xD800 <= point < 0xE000
    for encoded in [chr(point).encode()]
    for size in range(1, len(encoded))
}
tricky = st.sampled_from(b"a\x80\x8d\x90\x9f\xa0\xa9\xac\xc0\xc3\xe0\xe2\xed\xf0\xf4\xf5\xff")


@given(st.lists(tricky, max_size=6).map(bytes))
@example(b"\xed\xa0")
def test_unfinished_character_is_what_more_bytes_could_finish(data: bytes) -> None:
    """What is held back is a proper beginning of one character, and nothing else is held back."""
    endings = [back for back in range(1, min(3, len(data)) + 1) if data[-back:] in BEGINNINGS]
    assert unfinished_character(data) == max(endings, default=0)
    assert unfinished_character(bytearray(data)) == max(endings, default=0)
