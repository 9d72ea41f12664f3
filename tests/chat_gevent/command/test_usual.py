"""Help that fits on a screen: what it leaves out is in ``--help-all``, and what it says holds."""

from __future__ import annotations

import re

import pytest

from chat_gevent.command.config import FIELDS, shown_default
from chat_gevent.command.main import main
from chat_gevent.command.parser import COMMANDS


def shown(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints as its help."""
    with pytest.raises(SystemExit) as end:
        main(list(words))
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_on_a_screen(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """40 lines of 80 columns, with an example that begins with the command."""
    monkeypatch.setenv("COLUMNS", "80")
    lines = shown(command, "--help", capsys=capsys).splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    assert any(line.startswith(f"  chat-gevent {command}") for line in lines)


def test_the_usual_options_of_serve(capsys: pytest.CaptureFixture[str]) -> None:
    """Each is an option that there is; a default that is shown is the one that counts."""
    short = shown("serve", "--help", capsys=capsys)
    everything = shown("serve", "--help-all", capsys=capsys)
    named = re.findall(r"^  (--[a-z-]+) ", short, re.MULTILINE)
    assert len(named) > 12
    for option in named:
        assert option in everything
    for option, said in re.findall(r"^  (--[a-z-]+) .*\(default: (.*)\)$", short, re.MULTILINE):
        assert said == shown_default(option.removeprefix("--").replace("-", "_"))
    assert len(everything.splitlines()) > len(FIELDS)


def test_no_command_says_what_to_try_first(capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2, and commands that can be copied."""
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 2
    first = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in first] == [
        "chat-gevent serve",
        "chat-gevent client hello",
        "chat-gevent limits",
        "chat-gevent --help",
    ]
