"""Settings: every number and choice a server runs with, in one frozen and validated dataclass.

Each field says its unit, its range and what it is for; ``field(metadata=...)`` carries that as data,
so that the command line, the environment and the configuration file are made from the same place
and can't drift apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from chat_gevent.framing import MAX_MESSAGE_BYTES, Framing


class SettingError(ValueError):
    """A setting has a value it can't have; the message names the setting, the value and the range."""


def _setting(default: Any, help: str, low: float = 0, high: float = math.inf, unit: str = "") -> Any:
    return field(default=default, metadata={"help": help, "low": low, "high": high, "unit": unit})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a server behaves towards its clients. Times are in seconds, sizes in bytes, 0 means no limit.

    Raises SettingError: a value is outside its range.
    """

    framing: Framing = _setting(Framing.AUTO, "how messages are told apart: line, chunk, auto")
    park_after: float | None = _setting(
        0.0, "idle time after which a client gives its greenlet back; 'never' keeps it", unit="s"
    )
    max_message_bytes: int = _setting(
        MAX_MESSAGE_BYTES, "longest message, without its terminator", low=1, high=2**30, unit="bytes"
    )
    max_connections: int = _setting(0, "most clients at once; 0: what the file limit carries", unit="clients")
    max_connections_per_address: int = _setting(0, "most clients at once from one address", unit="clients")
    message_rate: float = _setting(
        0.0, "messages a second one client may send; more wait, none is lost", unit="1/s"
    )
    idle_timeout: float = _setting(3600.0, "close a client that completes no message for this long", unit="s")
    write_timeout: float = _setting(30.0, "close a client that takes no reply for this long", unit="s")
    handshake_timeout: float = _setting(10.0, "time a client has for TLS and PROXY headers", unit="s")
    linger_timeout: float = _setting(
        2.0, "time a client has to read its last reply before the close", low=0.01, unit="s"
    )
    drain_timeout: float = _setting(30.0, "time in which a stopping server dismisses its clients", unit="s")
    keepalive_idle: int = _setting(60, "silence after which TCP probes a peer", low=0, high=32767, unit="s")
    keepalive_interval: int = _setting(10, "time between two TCP probes", low=1, high=32767, unit="s")
    keepalive_probes: int = _setting(6, "unanswered TCP probes that end a connection", low=1, high=127)
    tcp_user_timeout: float = _setting(
        60.0, "time sent bytes may stay unacknowledged", high=2_000_000, unit="s"
    )
    backlog: int = _setting(4096, "connections that wait to be accepted", low=1, high=65535)
    spare_greenlets: int = _setting(256, "free greenlets kept for the next burst", low=1, unit="greenlets")

    def __post_init__(self) -> None:
        for each in fields(self):
            check(each.name, getattr(self, each.name), each.metadata)


def check(name: str, value: Any, metadata: Mapping[str, Any]) -> None:
    """Raise SettingError unless ``value`` is in the range that ``metadata`` gives."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high = metadata["low"], metadata["high"]
        if not low <= value <= high:
            allowed = f"at least {low}" if high == math.inf else f"{low} to {high}"
            raise SettingError(f"{name} = {value}: must be {allowed} {metadata['unit']}".rstrip())
