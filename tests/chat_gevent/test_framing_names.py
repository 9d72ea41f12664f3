"""Framings as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_gevent.command.config import load
from chat_gevent.framing import AUTO, CHUNK, LINE, Delimiter, Framing, LengthPrefix
from chat_gevent.framing_names import parse, written


def test_what_can_be_written() -> None:
    """Each form, each escape, any UTF-8, and either order of bytes."""
    assert [parse(name) for name in ("line", "chunk", "auto")] == [LINE, CHUNK, AUTO]
    assert parse(r"delimiter:\0\n\r\t\\\x7Fä:") == Delimiter(b"\0\n\r\t\\\x7f\xc3\xa4:")
    assert parse("length:4") == LengthPrefix(4)
    assert parse("length:2le") == LengthPrefix(2, "little")


@pytest.mark.parametrize(
    "wrong", ["", "lines", "line:", "delimiter", "delimiter:", "length", "length:3", "length:4be", "chunk:5"]
)
def test_anything_else_is_refused_with_what_can_be_written(wrong: str) -> None:
    """The message names every form."""
    with pytest.raises(ValueError, match=r"must be line, chunk, auto, delimiter:TEXT .* or length:BYTES"):
        parse(wrong)


@given(
    st.sampled_from([LINE, CHUNK, AUTO])
    | st.binary(min_size=1, max_size=8).map(Delimiter)
    | st.builds(LengthPrefix, st.sampled_from([1, 2, 4, 8]), st.sampled_from(["big", "little"]))
)
def test_what_is_written_is_read_as_the_same(framing: Framing) -> None:
    """For every framing that can be written, and on one line of ASCII without blanks."""
    text = written(framing)
    assert parse(text) == framing
    assert text.isascii()
    assert text.isprintable()
    assert " " not in text


def test_a_length_that_counts_itself_has_only_its_name() -> None:
    """There is no form for it."""
    assert written(LengthPrefix(4, inclusive=True)) == "length"


def test_the_server_takes_all_of_them(tmp_path: Path) -> None:
    """From the command line, the environment and a file; what it shows as a file is read as the same."""
    for text in ("line", r"delimiter:\r\n", "delimiter:;", "length:2le"):
        loaded = load({"framing": text}, {})
        assert loaded.settings.framing == parse(text)
        assert load({}, {"CHAT_GEVENT_FRAMING": text}).settings == loaded.settings
        (tmp_path / "server.toml").write_text(loaded.show())
        assert load({}, {}, str(tmp_path / "server.toml")).settings == loaded.settings
