"""Where a server's settings come from: command line, environment, configuration file, defaults.

:class:`ServeSettings` adds to :class:`~chat_gevent.settings.Settings` what only the ``serve``
command needs. Each field is, by its name, an option (``--idle-timeout``), an environment variable
(``CHAT_GEVENT_IDLE_TIMEOUT``) and a key of the TOML file given with ``--config`` (``idle_timeout``).
The first of these that gives a value counts; :func:`load` remembers which it was, for error messages
and for ``--print-config``.
"""

from __future__ import annotations

import argparse
import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any, Final

from chat_gevent.command.values import (
    LOG_FORMATS,
    LOG_LEVELS,
    backplane_url,
    handler_name,
    host_names,
    host_port,
    listen_addresses,
    log_format,
    log_level,
    mode,
    networks,
    switch,
    text,
    without_secrets,
)
from chat_gevent.command.values import (
    host as host_value,
)
from chat_gevent.errors import ChatError, SettingError
from chat_gevent.framing_names import written
from chat_gevent.settings import Settings, seconds, setting, whole

ENVIRONMENT_PREFIX: Final = "CHAT_GEVENT_"

_NO_TEXT: Final = {chr(number) for number in range(0xD800, 0xE000)}
"""What stands for bytes that are no UTF-8, as a path may have; TOML has no form for them."""

LONGEST_SHOWN: Final = 200
"""Most characters of a wrong value that a complaint repeats."""


class ConfigError(ChatError):
    """A setting can't be used; the message says where it was given, what it was and what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings(Settings):
    """All that ``chat-gevent serve`` runs with.

    Raises SettingError: a value is outside its range, or two don't go together.
    """

    host: str = setting("127.0.0.1", host_value, "address or name to listen on")
    port: int = setting(12345, whole, "port to listen on; 0: any free one", high=65535)
    listen: tuple[str, ...] = setting(
        (),
        listen_addresses,
        "tcp://HOST:PORT, tls://HOST:PORT, unix:///PATH; may be repeated; instead of host and port",
        metavar="ADDRESS",
    )
    ipv6_only: bool = setting(False, switch, "whether [::] leaves IPv4 alone")
    unix_mode: str = setting(
        "", mode, "permissions of UNIX sockets, octal; without it 0660; not for abstract ones", metavar="MODE"
    )
    tls_certificate: str = setting("", text, "file of the certificate and its chain, PEM", metavar="FILE")
    tls_key: str = setting(
        "", text, "file of the private key, PEM, where it isn't with the certificate", metavar="FILE"
    )
    tls_client_ca: str = setting(
        "", text, "file of the CAs, PEM, one of which must have signed a client's certificate", metavar="FILE"
    )
    proxy_from: tuple[str, ...] = setting(
        (),
        networks,
        "networks whose connections begin with a PROXY protocol header, v1 or v2",
        metavar="NETWORK",
    )
    handler: str = setting(
        "",
        handler_name,
        "package.module:name of the function or service that answers instead of the confirmation",
        metavar="MODULE:NAME",
    )
    max_blocking_time: float = setting(
        1.0, seconds, "how long a handler may hold the event loop before the log names it; 0: any", unit="s"
    )
    monkey: bool = setting(
        False, switch, "patch the standard library with gevent's first, for handlers; not in the file"
    )
    backplane: str = setting(
        "",
        backplane_url,
        "Redis that carries broadcasts to other processes: redis://HOST:PORT, rediss://, unix:///PATH; none: "
        "they are to stay apart",
        metavar="URL",
    )
    backplane_prefix: str = setting(
        "chat-gevent:",
        text,
        "what its channels begin with; services that differ in it hear nothing of each other",
    )
    backplane_required: bool = setting(
        False, switch, "whether /readyz says 503 while the backplane is lost; all servers would at once"
    )
    workers: int = setting(
        1, whole, "processes that serve; 0: one for each core; more than 1 needs the extra workers", high=512
    )
    reload_interval: float = setting(
        0.0,
        seconds,
        "time over which workers that SIGHUP replaces tell their clients to leave; 0: as in a drain",
        unit="s",
    )
    admin: str = setting(
        "",
        host_port,
        "HOST:PORT for /metrics, /healthz, /readyz, /clients; loopback unless HOST is given",
        metavar="HOST:PORT",
    )
    admin_hosts: tuple[str, ...] = setting(
        (),
        host_names,
        "names by which the admin pages may be asked for, beside localhost and their address",
        metavar="HOST",
    )
    log_level: str = setting("info", log_level, "debug, info, warning, error", words=LOG_LEVELS)
    log_format: str = setting("text", log_format, "text, json", words=LOG_FORMATS)
    access_log: bool = setting(False, switch, "one line for each client that leaves")

    def __post_init__(self) -> None:
        Settings.__post_init__(self)  # super() does not know a dataclass that was remade for its slots
        for name in ("tls_key", "tls_client_ca"):
            if getattr(self, name) and not self.tls_certificate:
                raise SettingError(name, getattr(self, name), "needs --tls-certificate beside it")
        if any(each.startswith("tls:") for each in self.listen) and not self.tls_certificate:
            raise SettingError("listen", self.listen, "tls:// needs --tls-certificate beside it")
        if self.unix_mode and any(each.startswith("unix://@") for each in self.listen):
            problem = "an abstract UNIX socket has no permissions: anybody on this machine may connect to it"
            raise SettingError("unix_mode", self.unix_mode, problem)

    @property
    def addresses(self) -> tuple[str, ...]:
        """What to listen on: ``listen``, else ``host`` and ``port``, with TLS if there is a certificate."""
        if self.listen:
            return self.listen
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (f"{'tls' if self.tls_certificate else 'tcp'}://{host}:{self.port}",)


FIELDS: Final[dict[str, Field[Any]]] = {each.name: each for each in fields(ServeSettings)}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` an option for each setting; what is not given leaves no trace in the namespace."""
    own = [name for name in FIELDS if name not in {each.name for each in fields(Settings)}]
    for title, names in (("listening, admin, logs", own), ("clients", [n for n in FIELDS if n not in own])):
        group = parser.add_argument_group(title)
        for name in names:
            metadata, default = FIELDS[name].metadata, FIELDS[name].default
            common: dict[str, Any] = {
                "dest": name,
                "default": argparse.SUPPRESS,
                "help": f"{metadata['help']} (default: {shown_default(name)})".replace("%", "%%"),
            }
            if isinstance(default, bool):
                group.add_argument(option(name), action=argparse.BooleanOptionalAction, **common)
            elif isinstance(default, tuple):
                group.add_argument(option(name), action="append", metavar=_metavar(name), **common)
            else:
                group.add_argument(option(name), metavar=_metavar(name), **common)


def shown_default(name: str) -> str:
    """The default of a setting with its unit, as help shows it."""
    default, unit = FIELDS[name].default, FIELDS[name].metadata["unit"]
    return (_as_text(default) or "none") + (f" {unit}" if unit and default is not None else "")


def option(name: str) -> str:
    """The command-line option of a setting."""
    return "--" + name.replace("_", "-")


def _metavar(name: str) -> str:
    metadata = FIELDS[name].metadata
    unit = metadata["unit"]
    kinds = {"s": "SECONDS", "bytes": "BYTES", "": name.rsplit("_", 1)[-1].upper()}
    return metadata["metavar"] or kinds.get(unit, "N")


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and for each where its value came from."""

    settings: ServeSettings
    origins: Mapping[str, str]

    def show(self) -> str:
        """As a configuration file, each line with its origin. Passwords are not shown."""
        lines = []
        for name in FIELDS:
            value = without_secrets(f"{name} = {_as_toml(getattr(self.settings, name), name)}")
            lines.append(f"{value:<44} # {self.origins[name]}")
        return "\n".join(lines)


def load(
    options: Mapping[str, Any], environment: Mapping[str, str] = os.environ, file: str | None = None
) -> Loaded:
    """Settings from ``options`` (of :func:`add_options`), then ``environment``, then the TOML ``file``.

    ``file`` may also be named by ``CHAT_GEVENT_CONFIG``. Raises ConfigError.
    """
    given: dict[str, tuple[Any, str, str]] = {}  # value, origin, and how to name it in a complaint
    file = file or environment.get(ENVIRONMENT_PREFIX + "CONFIG")
    if file:
        for name, value in _read(file).items():
            given[name] = value, f"file {file}", f"{file}: {name}"
    for variable, value in environment.items():
        if variable.startswith(ENVIRONMENT_PREFIX) and variable != ENVIRONMENT_PREFIX + "CONFIG":
            name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
            variables = {each: ENVIRONMENT_PREFIX + each.upper() for each in FIELDS}
            _known(name, f"environment: {variable}", variables)
            given[name] = value, f"environment {variable}", f"environment: {variable}"
    for name, value in options.items():
        given[name] = value, f"command line {option(name)}", option(name)
    try:
        settings = ServeSettings(**{name: value for name, (value, _, _) in given.items()})
    except SettingError as error:
        _, _, label = given.get(error.name, (None, "", error.name))
        raise ConfigError(f"{label} = {_plain(error.value)}: {error.problem}") from None
    except RecursionError:
        raise ConfigError(f"{file}: a value is nested too deeply") from None
    return Loaded(settings, {name: given[name][1] if name in given else "default" for name in FIELDS})


def _read(file: str) -> dict[str, Any]:
    try:
        found = tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: can't be read: {error.strerror}") from None
    except RecursionError:
        raise ConfigError(f"{file}: not usable: nested too deeply") from None
    except ValueError as error:  # not TOML, not UTF-8, or a number of too many digits
        raise ConfigError(f"{file}: not TOML: {error}") from None
    for name in found:
        _known(name, f"{file}: {name}", {each: each for each in FIELDS})
    return found


def _known(name: str, label: str, names: Mapping[str, str]) -> None:
    if name in FIELDS:
        return
    close = difflib.get_close_matches(name, names, n=1)
    hint = f", did you mean {names[close[0]]}?" if close else f"; known: {', '.join(names.values())}"
    raise ConfigError(f"{label}: no such setting{hint}")


def _plain(value: Any) -> str:
    """A value as it was given, but on one line, and shortened where it is long."""
    if isinstance(value, (list, tuple)) and all(isinstance(each, str) for each in value):
        value = ", ".join(value)
    shown = without_secrets(value if isinstance(value, str) else repr(value))
    return shown if len(shown) <= LONGEST_SHOWN else shown[:LONGEST_SHOWN] + "..."


def _as_text(value: Any, name: str = "") -> str:
    if name == "park_after" and value is None:
        return "never"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(value)
    return written(value) if hasattr(value, "name") else str(value)


def _as_toml(value: Any, name: str = "") -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_as_toml(each) for each in value) + "]"
    if isinstance(value, (bool, int, float)):
        return _as_text(value)
    return '"' + "".join(map(_in_toml, _as_text(value, name))) + '"'


def _in_toml(character: str) -> str:
    """A character within a TOML string: nothing that would end it, or command a terminal that shows it."""
    if character in '"\\':
        return "\\" + character
    if character.isprintable() or character in _NO_TEXT:
        return character
    number = ord(character)
    return f"\\u{number:04x}" if number < 2**16 else f"\\U{number:08x}"
