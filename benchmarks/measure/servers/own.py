"""A server of the user's, ``mine=./server --port {port}``, and the protocol that it speaks.

A command with ``{certificate}`` and ``{key}`` speaks TLS, with the files that these are replaced by.
"""

from __future__ import annotations

import shlex
import shutil
from functools import reduce
from pathlib import Path
from typing import Final

from benchmarks.measure.servers import SERVERS, Server

BODY: Final = "{message}"
SEND: Final = f"{BODY}\\n"
EXPECT: Final = f"Received: {BODY}\\n"
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}


def unescaped(text: str) -> str:
    """``\\n``, ``\\r``, ``\\t`` and ``\\\\`` as characters. Raises ValueError for others."""
    parts = iter(text)
    found = ""
    for part in parts:
        if part == "\\":
            name = next(parts, "")
            if name not in _ESCAPES:
                raise ValueError(f"{text!r}: after a backslash comes n, r, t or a backslash")
            part = _ESCAPES[name]
        found += part
    return found


def protocol(send: str, expect: str) -> dict[str, object]:
    """Options of the load generator for what is sent and expected, each with ``{message}`` at most once.

    Raises ValueError: a text is empty, or has ``{message}`` twice, or an escape that is none.
    """
    options: dict[str, object] = {}
    for way, text in (("send", send), ("expect", expect)):
        head, body, tail = unescaped(text).partition(BODY)
        if not text or BODY in tail or "\0" in text:
            raise ValueError(f"--{way} {text!r}: a text with {BODY} in it at most once")
        options |= {f"{way}_head": head, f"{way}_body": int(bool(body)), f"{way}_tail": tail}
    return options


def own_server(text: str, send: str = SEND, expect: str = EXPECT) -> Server:
    """The server that ``NAME=COMMAND`` describes. Raises ValueError: there is none."""
    name, equals, command = text.partition("=")
    words = shlex.split(command)
    if not name or not equals or not words:
        raise ValueError(
            f"--server {text!r}: NAME=COMMAND is wanted, such as 'mine=./server --port {{port}}'"
        )
    if name in SERVERS:
        raise ValueError(f"--server {text!r}: {name} is one of the servers here; choose another name")
    if not any("{port}" in word for word in words):
        raise ValueError(f"--server {text!r}: the command has no {{port}}")
    program = shutil.which(words[0])
    if program is None:
        raise ValueError(f"--server {text!r}: there is no program {words[0]}")
    words[0] = str(Path(program).absolute())
    encrypts = [any(f"{{{name}}}" in word for word in words) for name in ("certificate", "key")]
    if any(encrypts) and not all(encrypts):
        raise ValueError(f"--server {text!r}: over TLS the command needs {{certificate}} and {{key}}")

    def over_tls(certificate: Path, key: Path) -> list[str]:
        names = (("{certificate}", certificate), ("{key}", key))
        return [reduce(lambda done, name: done.replace(name[0], str(name[1])), names, word) for word in words]

    files = [str(path.absolute()) for path in map(Path, words) if path.is_file()]
    spoken = protocol(send, expect)
    standard = spoken == protocol(SEND, EXPECT)
    return Server(
        name, command, lambda: words, tuple(files), own=True,
        protocol={} if standard else spoken, framing="line", tls=over_tls if all(encrypts) else None,
    )  # fmt: skip
