"""Settings: what they take, what they refuse, and in which words."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import pytest

from chat_gevent import SettingError, Settings
from chat_gevent.framing import CHUNK, LINE
from chat_gevent.framing_names import FORMS


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("idle_timeout", "5m", 300.0),
        ("idle_timeout", "1.5h", 5400.0),
        ("write_timeout", "500ms", 0.5),
        ("write_timeout", 3, 3.0),
        ("drain_timeout", "0", 0.0),
        ("park_after", "never", None),
        ("park_after", None, None),
        ("park_after", "0s", 0.0),
        ("max_message_bytes", "64KiB", 65536),
        ("max_message_bytes", "1MB", 1_000_000),
        ("max_connections", "200", 200),
        ("message_rate", "0.5", 0.5),
        ("framing", "line", LINE),
        ("framing", CHUNK, CHUNK),
    ],
)
def test_values_may_be_given_as_people_write_them(name: str, given: Any, value: Any) -> None:
    """Numbers with and without units, as text or not, become the value they mean."""
    found = getattr(Settings(**{name: given}), name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "given", "allowed"),
    [
        ("idle_timeout", -1, "must be at least 0 s"),
        ("idle_timeout", "soon", "must be a number such as 30, 500ms, 5m or 1h"),
        ("idle_timeout", "5 parsecs", "must be a number such as 30, 500ms, 5m or 1h"),
        ("idle_timeout", float("nan"), "must be at least 0 s"),
        ("idle_timeout", float("inf"), "must be at least 0 s"),
        ("idle_timeout", None, "must be a number such as 30, 500ms, 5m or 1h"),
        ("idle_timeout", True, "must be a number such as 30, 500ms, 5m or 1h"),
        ("max_message_bytes", 0, "must be from 1 to 1073741824 bytes"),
        ("max_message_bytes", "1.5", "must be a whole number"),
        ("backlog", 70000, "must be from 1 to 65535 connections"),
        ("keepalive_probes", 128, "must be from 1 to 127 probes"),
        ("linger_timeout", 0, "must be at least 0.01 s"),
        ("framing", "lines", f"must be {FORMS}; BYTES is 1, 2, 4 or 8"),
        ("park_after", "always", "must be 0 or never"),
        ("park_after", "2s", "must be 0 or never"),
    ],
)
def test_a_bad_value_names_itself_and_what_is_allowed(name: str, given: Any, allowed: str) -> None:
    """The error says the setting, the value and the range."""
    with pytest.raises(SettingError) as error:
        Settings(**{name: given})
    assert str(error.value) == f"{name} = {given!r}: {allowed}"


def test_settings_cant_be_changed() -> None:
    """A server's settings hold for its life."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().backlog = 1  # type: ignore[misc]


def test_each_setting_explains_itself() -> None:
    """Every field has a help text, and its default passes its own check."""
    for each in dataclasses.fields(Settings):
        assert len(each.metadata["help"]) > 10, each.name
        assert getattr(Settings(), each.name) == each.default


def test_public_names_resolve_and_are_imported_on_use() -> None:
    """Each name of ``chat_gevent.__all__`` is there; the package alone imports neither gevent nor ssl."""
    program = (
        "import sys, chat_gevent, chat_gevent.framing, chat_gevent.confirm\n"
        "assert not {'gevent', 'greenlet', 'ssl'} & set(sys.modules), sorted(sys.modules)\n"
        "for name in chat_gevent.__all__: assert getattr(chat_gevent, name) is not None\n"
        "assert 'gevent' in sys.modules\n"
        "assert set(chat_gevent.__all__) <= set(dir(chat_gevent))\n"
        "try: chat_gevent.Nothing\n"
        "except AttributeError as error: assert 'Nothing' in str(error)\n"
        "else: raise AssertionError\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
