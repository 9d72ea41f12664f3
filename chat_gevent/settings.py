"""Settings: every number and choice a server runs with, in one frozen and validated dataclass.

Each field says its unit, its range and what it is for; ``field(metadata=...)`` carries that as data,
so that the command line, the environment and the configuration file are made from the same place
and can't drift apart.

A value may be given as its text too, as people write it: ``"5m"`` for 300 seconds, ``"64KiB"`` for
65,536 bytes, ``"never"``, ``"line"``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from chat_gevent import framing_names
from chat_gevent.errors import SettingError
from chat_gevent.framing import BY_NAME, MAX_MESSAGE_BYTES, Framing

SECONDS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
BYTES: Final = {"": 1, "B": 1, "kB": 1000, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

UNACKNOWLEDGED_SECONDS: Final = 60.0
"""How long bytes may stay unacknowledged where no keepalive setting says how long a client may be silent."""

LARGEST: Final = 2**63
"""No setting means more than that, and not every whole number can be made a float."""


def _with_unit(value: Any, units: Mapping[str, float], example: str) -> float:
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(-?[0-9]*\.?[0-9]+)\s*([A-Za-z]*)\s*", value)
        if not match or match[2] not in units:
            raise ValueError(f"must be a number such as {example}")
        value = float(match[1]) * units[match[2]]
        if not value.is_integer():
            value = float(f"{value:.15g}")  # 1.1 ms are 0.0011 s, not 0.0011000000000000001 s
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"must be a number such as {example}")
    if abs(value) > LARGEST and value != math.inf:
        raise ValueError("is too large a number")
    number: float = value
    return number


def seconds(value: Any) -> float:
    """``90``, ``"90"``, ``"1.5m"`` to seconds. Raises ValueError."""
    return float(_with_unit(value, SECONDS, "30, 500ms, 5m or 1h"))


def seconds_or_automatic(value: Any) -> float | None:
    """As :func:`seconds`; None for nothing given. Raises ValueError."""
    return None if value is None or value == "" else seconds(value)


def at_once_or_never(value: Any) -> float | None:
    """0; None for ``"never"``. Raises ValueError."""
    if value is None or value == "never":
        return None
    try:
        if seconds(value) == 0:
            return 0.0
    except ValueError:
        pass
    raise ValueError("must be 0 or never")


def number(value: Any) -> float:
    """A number, or the text of one. Raises ValueError."""
    return float(_with_unit(value, {"": 1}, "100 or 0.5"))


def whole(value: Any) -> int:
    """A whole number, or the text of one. Raises ValueError."""
    return _whole(_with_unit(value, {"": 1}, "100"))


def size(value: Any) -> int:
    """``65536``, ``"64KiB"``, ``"1MB"`` to bytes. Raises ValueError."""
    return _whole(_with_unit(value, BYTES, "65536 or 64KiB"))


def _whole(value: float) -> int:
    if not math.isfinite(value) or value != int(value):
        raise ValueError("must be a whole number")
    return int(value)


def framing(value: Any) -> Framing | None:
    """A :class:`Framing`, or how one is written; None for whatever suits who answers. Raises ValueError."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return framing_names.parse(value)
    if all(hasattr(value, each) for each in ("split", "finish", "encode", "name")):
        return value  # type: ignore[no-any-return]
    raise ValueError(f"must be {framing_names.FORMS}, or have split, finish, encode and name")


def one_of(*known: str) -> Callable[[Any], str]:
    """What takes one of these words and nothing else; it raises ValueError."""

    def parse(value: Any) -> str:
        if not isinstance(value, str) or value.lower() not in known:
            raise ValueError(f"must be one of {', '.join(filter(None, known))}")
        return value.lower()

    return parse


def setting(
    default: Any,
    parse: Callable[[Any], Any],
    help: str,
    *,
    low: float = 0,
    high: float = math.inf,
    unit: str = "",
    metavar: str = "",
    words: tuple[str, ...] = (),
) -> Any:
    """A dataclass field with what is needed to read it, check it and explain it.

    ``parse`` makes the value from what it may be given as, and raises ValueError saying what it must be.
    ``words`` are those that a shell may complete it to.
    """
    metadata = {
        "parse": parse,
        "help": help,
        "low": low,
        "high": high,
        "unit": unit,
        "metavar": metavar,
        "words": words,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a server behaves towards its clients. Times are in seconds, sizes in bytes, 0 means no limit.

    Raises SettingError: a value is outside its range.
    """

    framing: Framing | None = setting(
        None,
        framing,
        f"how messages are told apart: {framing_names.FORMS}; without it auto, line for a handler",
        words=(*BY_NAME, "delimiter:", "length:"),
    )
    park_after: float | None = setting(
        0.0,
        at_once_or_never,
        "0: a client gives its greenlet back when it has nothing to say; never: it keeps it",
        words=("0", "never"),
    )
    max_message_bytes: int = setting(
        MAX_MESSAGE_BYTES, size, "longest message, without its terminator", low=1, high=2**30, unit="bytes"
    )
    max_connections: int = setting(
        0, whole, "most clients at once; 0: what files, epoll watches and memory carry", unit="clients"
    )
    max_connections_per_address: int = setting(
        0, whole, "most clients at once from one address; 0: no limit", unit="clients"
    )
    per_address_ipv6_prefix: int = setting(
        64, whole, "bits of an IPv6 address that tell two clients apart", low=1, high=128, unit="bits"
    )
    message_rate: float = setting(
        0.0, number, "messages a second one client may send; more wait, none is lost; 0: no limit", unit="/s"
    )
    idle_timeout: float = setting(
        3600.0, seconds, "close a client that completes no message for this long; 0: never", unit="s"
    )
    write_timeout: float = setting(
        30.0, seconds, "close a client that takes no reply for this long; 0: never", unit="s"
    )
    min_read_rate: float = setting(
        0.0, number, "bytes a second a client must take while much is due to it; 0: any", unit="bytes/s"
    )
    idle: str = setting(
        "",
        one_of("", "input", "any"),
        "what counts as activity: input, any; without it input, any for a service",
        words=("input", "any"),
    )
    input_total_bytes: int = setting(
        2**28, size, "most bytes of unfinished messages of all clients; 0: no limit", high=2**40, unit="bytes"
    )
    outbox_bytes: int = setting(
        2**18, size, "most bytes of pushes that wait for one client", low=1, high=2**31, unit="bytes"
    )
    outbox_total_bytes: int = setting(
        2**28, size, "most bytes of pushes that wait for all clients", low=1, high=2**40, unit="bytes"
    )
    slow_consumer: str = setting(
        "close",
        one_of("close", "drop-newest"),
        "what happens to a client or push beyond that: close, drop-newest",
        words=("close", "drop-newest"),
    )
    handshake_timeout: float = setting(
        10.0, seconds, "time a client has for its TLS handshake and PROXY header; 0: any", unit="s"
    )
    linger_timeout: float = setting(
        2.0, seconds, "time a client has to read its last reply before the close", low=0.01, unit="s"
    )
    drain_timeout: float = setting(
        30.0, seconds, "time in which a stopping server has its clients leave; 0: cut off at once", unit="s"
    )
    drain_delay: float = setting(
        0.0,
        seconds,
        "time in which a stopping server says on /readyz that it goes, and still admits clients",
        unit="s",
    )
    retry_spread: float = setting(
        5.0,
        seconds,
        "time over which clients that must go are told to come back, each at a random moment; 0: not told",
        high=86_400,
        unit="s",
    )
    """5 s have 20,000 clients, as many as one process holds by a usual limit of files, come back at 4,000 a
    second. That is less than one core admits, so who is back is served at once. Over TLS a client takes 0.6
    ms of a core to come back: for more than 5,000 of them set it to their number divided by 1,000."""
    keepalive_idle: int = setting(
        60, whole, "seconds of silence after which TCP probes a peer; 0: it doesn't", high=32767, unit="s"
    )
    keepalive_interval: int = setting(
        10, whole, "seconds between two TCP probes", low=1, high=32767, unit="s"
    )
    keepalive_probes: int = setting(
        6, whole, "unanswered TCP probes that end a connection", low=1, high=127, unit="probes"
    )
    tcp_user_timeout: float | None = setting(
        None,
        seconds_or_automatic,
        "time sent bytes may stay unacknowledged; 0: the kernel's; without it no shorter than the probes",
        high=2_000_000,
        unit="s",
    )
    backlog: int = setting(
        4096, whole, "connections that may wait to be accepted", low=1, high=65535, unit="connections"
    )
    spare_greenlets: int = setting(
        256, whole, "free greenlets kept for the next burst", low=1, high=1_000_000, unit="greenlets"
    )

    @property
    def probing_time(self) -> float:
        """Seconds of silence after which TCP's probes end a connection; 0: they don't."""
        return self.keepalive_idle and self.keepalive_idle + self.keepalive_interval * self.keepalive_probes

    @property
    def user_timeout(self) -> float:
        """Seconds for ``TCP_USER_TIMEOUT``; 0: the kernel's.

        Where it is set the kernel ends a connection after that time, however many probes are left, and also
        one whose client only reads nothing. So it is no shorter than the probes and ``write_timeout``, unless
        it was set by hand.
        """
        if self.tcp_user_timeout is not None:
            return self.tcp_user_timeout
        if not self.write_timeout:
            return 0.0
        return max(self.probing_time or UNACKNOWLEDGED_SECONDS, self.write_timeout)

    def cut_short(self) -> list[str]:
        """What a ``tcp_user_timeout`` that was set by hand cuts short, with the seconds of it."""
        short = self.tcp_user_timeout
        if not short:
            return []
        times = {
            "the probes of keepalive": self.probing_time,
            "write_timeout": self.write_timeout or math.inf,
        }
        return [f"{name} ({value:g} s)" for name, value in times.items() if value > short]

    def __post_init__(self) -> None:
        for each in fields(self):
            given = getattr(self, each.name)
            try:
                value = each.metadata["parse"](given)
                check(value, each.metadata)
            except ValueError as error:
                raise SettingError(each.name, given, str(error)) from None
            object.__setattr__(self, each.name, value)


def check(value: Any, metadata: Mapping[str, Any]) -> None:
    """Raise ValueError, saying what is allowed, unless ``value`` is in the range ``metadata`` gives."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high, unit = metadata["low"], metadata["high"], metadata["unit"]
        if not low <= value <= high or value == math.inf:
            allowed = f"at least {low}" if high == math.inf else f"from {low} to {high}"
            raise ValueError(f"must be {allowed} {unit}".rstrip())
