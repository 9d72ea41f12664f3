"""What a shell completes: asked as a shell asks, by environment variables and file descriptor 8."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chat_gevent.command.config import FIELDS
from tests.conftest import command, require_tool


def ask(line: str, start: int = 1, cwd: Path | None = None, *program: str) -> tuple[list[str], str]:
    """The completions of ``line``, and what was written to standard error, with all imports."""
    environment = {
        **os.environ,
        "_ARGCOMPLETE": str(start),
        "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
        "PYTHONPROFILEIMPORTTIME": "1",
    }
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" 8>&1 9>/dev/null', "sh", *(program or command())],
        capture_output=True,
        text=True,
        timeout=30,
        env=environment,
        cwd=cwd,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return [each.rstrip() for each in done.stdout.splitlines()], done.stderr


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("chat-gevent ", {"serve", "client", "limits", "bench", "compare", "loadtest", "--version"}),
        ("chat-gevent s", {"serve"}),
        ("chat-gevent serve --drain", {"--drain-timeout", "--drain-delay"}),
        ("chat-gevent serve --log-level ", {"debug", "info", "warning", "error"}),
        ("chat-gevent serve --framing ", {"line", "chunk", "auto"}),
        ("chat-gevent serve --slow-consumer dr", {"drop-newest"}),
        ("chat-gevent client --re", {"--reconnect"}),
        ("chat-gevent client --framing d", {"delimiter:"}),
        ("chat-gevent limits --", {"--help"}),
        ("chat-gevent bench ", {"run", "list", "compare", "experiment"}),
        ("chat-gevent bench run ", {"confirm", "paced", "tls"}),
        ("chat-gevent bench run confirm --servers c_epoll,chat", {"c_epoll,chat_gevent"}),
        ("chat-gevent bench run confirm --con", {"--connections"}),
        ("chat-gevent bench experiment st", {"storm"}),
        ("chat-gevent bench experiment storm --ways ", {"hint", "no-hint", "kill"}),
        ("chat-gevent compare --str", {"--strict"}),
        ("chat-gevent loadtest --think", {"--think-time"}),
        ("chat-gevent loadtest --users", {"--users"}),
        ("chat-gevent loadtest --loglevel ", {"DEBUG", "ERROR"}),
        ("chat-gevent loadtest record --m", {"--mask"}),
    ],
)
def test_completions(line: str, some: set[str]) -> None:
    """Commands, options, words that an option takes. All begin with what was typed; gevent is not loaded."""
    found, log = ask(line)
    assert some <= set(found)
    typed = "" if line.endswith(" ") else line.split()[-1]
    assert all(each.startswith(typed) for each in found)
    assert "argcomplete" in log
    assert "gevent.hub" not in log
    assert "gevent._hub_local" not in log


@pytest.mark.parametrize(
    "line",
    [
        "chat-gevent serve --config s",
        "chat-gevent serve --tls-key s",
        "chat-gevent client --tls --ca s",
        "chat-gevent compare s",
        "chat-gevent bench show s",
        "chat-gevent loadtest -f s",
    ],
)
def test_files(line: str, tmp_path: Path) -> None:
    """Where a file is wanted, those that are there."""
    (tmp_path / "some.file").touch()
    assert ask(line, 1, tmp_path)[0] == ["some.file"]


def test_no_files_where_none_is_wanted(tmp_path: Path) -> None:
    """A number or a name is the user's to know."""
    (tmp_path / "some.file").touch()
    for line in ("chat-gevent serve --port ", "chat-gevent client --host s"):
        assert ask(line, 1, tmp_path)[0] == []


def test_modules_complete_as_the_command_does() -> None:
    """``python -m`` has three words before the arguments."""
    for module, line, found in (
        ("chat_gevent", "python -m chat_gevent lim", "limits"),
        ("chat_gevent", "python -m chat_gevent bench run conf", "confirm"),
        ("chat_gevent", "python -m chat_gevent compare --force", "--force"),
        ("benchmarks", "python -m benchmarks experiment storm --spr", "--spread"),
        ("loadtest", "python -m loadtest record --forc", "--force"),
    ):
        assert ask(line, 3, None, sys.executable, "-m", module)[0] == [found]


def test_a_real_shell(tmp_path: Path) -> None:
    """bash, told as the documents say, with the functions that it calls when Tab is pressed."""
    bash = require_tool("bash")
    register = Path(sys.executable).with_name("register-python-argcomplete")
    script = f"""
        PATH={Path(sys.executable).parent}:$PATH
        eval "$({register} chat-gevent)"
        COMP_LINE="chat-gevent serve --access" COMP_POINT=26 COMP_TYPE=9
        COMP_WORDS=(chat-gevent serve --access) COMP_CWORD=2
        function_of=$(complete -p chat-gevent | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
        $function_of chat-gevent --access serve
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run([bash, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.split() == ["--access-log"], done.stderr


def test_words_are_what_their_setting_takes() -> None:
    """Nothing is offered that would be refused, once what follows a colon is there."""
    offered = {name: each.metadata["words"] for name, each in FIELDS.items() if each.metadata["words"]}
    assert {"framing", "park_after", "idle", "slow_consumer", "log_level", "log_format"} <= set(offered)
    for name, words in offered.items():
        for word in words:
            FIELDS[name].metadata["parse"](f"{word}4" if word.endswith(":") else word)


def test_without_argcomplete_nothing_is_said(tmp_path: Path) -> None:
    """The shell goes on as without completion."""
    (tmp_path / "argcomplete").mkdir()
    (tmp_path / "argcomplete" / "__init__.py").write_text("raise ModuleNotFoundError('argcomplete')\n")
    environment = {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "COMP_LINE": "chat-gevent ",
        "COMP_POINT": "12",
        "PYTHONPATH": str(tmp_path),
    }
    for words in ((), ("chat_gevent",), ("benchmarks",), ("loadtest",)):
        program = [sys.executable, "-m", *words] if words else command()
        done = subprocess.run(
            program, env=environment, capture_output=True, text=True, timeout=30, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_a_start_that_is_not_asked_to_complete_does_not_load_it() -> None:
    """Neither argcomplete nor our module for it."""
    done = subprocess.run(
        command("--version"),
        env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "chat_gevent.command.parser" in done.stderr
    assert "complet" not in done.stderr
