"""A settings file, or variables of the environment, give settings or one line that says what is wrong.

What was taken is shown as a file that gives the same settings again.
"""

from __future__ import annotations

import os
import tempfile
from typing import Final

from chat_gevent.command.config import ENVIRONMENT_PREFIX, FIELDS, ConfigError, load
from chat_gevent.command.standard import printable
from tests.faults.fuzz.choices import Choices

NAMES: Final = sorted(FIELDS)


def check(data: bytes) -> None:
    """Raise AssertionError where settings are neither taken nor refused as they should be."""
    chosen = Choices(data)
    flags = chosen.byte()
    if flags & 1:  # environment: a name and a value of each line; its values have no NUL
        environment = {}
        for line in chosen.rest().replace(b"\0", b"").split(b"\n"):
            name = NAMES[line[0] % len(NAMES)] if line else "port"
            environment[ENVIRONMENT_PREFIX + name.upper()] = line[1:].decode(errors="surrogateescape")
        _load(environment, None)
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(chosen.rest())
            file.flush()
            _load({}, file.name)


def _load(environment: dict[str, str], file: str | None) -> None:
    try:
        loaded = load({}, environment, file)
    except ConfigError as error:
        shown = printable(str(error))
        assert shown.isprintable(), f"{shown!r} is not one line"
        assert "\n" not in shown
        return
    if "***" in loaded.show() or any("\udc80" <= c <= "\udcff" for c in loaded.show()):
        return  # a password is not shown, and bytes that are no text can't be in a file
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as again:
        again.write(loaded.show())
        again.flush()
        assert os.path.getsize(again.name) > 0  # noqa: PTH202
        assert load({}, {}, again.name).settings == loaded.settings, loaded.show()
