"""Coverage-guided fuzzing of all that reads bytes of strangers: ``python -m tests.faults.fuzz TARGET``.

===============  ====================================================================================
conversation     what the server makes of a client's bytes, against the protocol in ``tests.protocol``
framing          every framing of :mod:`chat_gevent.framing` and :mod:`loadtest.framing`
proxy            PROXY headers, read from a real socket
settings         the settings file and the environment
report           the reports that ``benchmarks`` and ``loadtest`` read
recorder         what a recorded client and server may say, up to the locustfile that is written
admin            requests to the admin pages
===============  ====================================================================================

Each target is a module of :mod:`tests.faults.fuzz.targets` with a function ``check(data)``, which raises
where a property does not hold. Its inputs are bytes that begin with choices
(:mod:`tests.faults.fuzz.choices`) and end with what is read.

Inputs that reach something are kept in the repository, one a line in ``corpus/TARGET.base64``. The tests run
them all through ``check`` without atheris, and atheris starts from them, with the words of
``corpus/TARGET.dict``. What fails is written to ``crash-...`` in the folder that ``--artifacts`` names;
``--replay FILE`` runs it again.
"""

from __future__ import annotations

import base64
import importlib
from pathlib import Path
from types import ModuleType
from typing import Final

TARGETS: Final[dict[str, tuple[str, ...]]] = {
    "conversation": (
        *("chat_gevent.conversation", "chat_gevent.framing", "chat_gevent.telnet"),
        *("chat_gevent.confirm", "chat_gevent.utf8"),
    ),
    "framing": ("chat_gevent.framing", "chat_gevent.telnet", "chat_gevent.utf8", "loadtest.replies"),
    "proxy": ("chat_gevent.proxy_protocol", "chat_gevent.identity", "chat_gevent.addresses"),
    "settings": (
        *("tomllib", "chat_gevent.settings", "chat_gevent.listeners"),
        *("chat_gevent.command.config", "chat_gevent.command.values"),
    ),
    "report": ("json", "benchmarks.reports"),
    "recorder": ("loadtest.record", "loadtest.replies", "chat_gevent.framing"),
    "admin": ("http", "chat_gevent.command.admin"),
}
"""The targets, each with the modules whose branches guide the search; a package means all that is in it."""

CORPUS: Final = Path(__file__).with_name("corpus")
"""Where the inputs that are kept lie."""


def load(name: str) -> ModuleType:
    """The module of the target called ``name``."""
    return importlib.import_module(f"tests.faults.fuzz.targets.{name}")


def corpus(name: str) -> list[bytes]:
    """The inputs that are kept of a target."""
    file = CORPUS / f"{name}.base64"
    return [base64.b64decode(line) for line in file.read_text().split()]


def keep(name: str, inputs: list[bytes]) -> None:
    """Add inputs to those that are kept, the shortest first, each once."""
    lines = {base64.b64encode(each).decode() for each in [*corpus(name), *inputs]}
    (CORPUS / f"{name}.base64").write_text(
        "\n".join(sorted(lines, key=lambda line: (len(line), line))) + "\n"
    )


def replay(name: str, inputs: list[bytes]) -> None:
    """Run ``check`` on each input; what it raises says which one it was."""
    check = load(name).check
    for each in inputs:
        try:
            check(each)
        except Exception as error:
            error.add_note(f"target {name}, input {base64.b64encode(each).decode()}")
            raise
