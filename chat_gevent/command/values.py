"""The values of settings that only the commands have: from what was given to what is meant.

Each function returns the value, or raises ValueError that says what it must be.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Final
from urllib.parse import urlsplit

from chat_gevent.addresses import split_address, split_host_port

LOG_LEVELS: Final = ("debug", "info", "warning", "error")
LOG_FORMATS: Final = ("text", "json")
_DOTTED: Final = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
"""A name of Python's, or several with dots between them."""


def text(value: Any) -> str:
    """Text. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError("must be text")
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


def texts(value: Any) -> tuple[str, ...]:
    """Several texts, or one text with commas between them. Raises ValueError."""
    if isinstance(value, str):
        value = [each.strip() for each in value.split(",")]
    if not isinstance(value, (list, tuple)) or not all(isinstance(each, str) for each in value):
        raise ValueError("must be a text or a list of texts")
    value = [text(each) for each in value]
    return tuple(each for single in value for each in re.split(r"\s*,\s*", single.strip()) if each)


def switch(value: Any) -> bool:
    """``true`` or ``false``, as such or as text. Raises ValueError."""
    known = {
        "true": True,
        "yes": True,
        "on": True,
        "1": True,
        "false": False,
        "no": False,
        "off": False,
        "0": False,
    }
    if isinstance(value, str) and value.lower() in known:
        return known[value.lower()]
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def mode(value: Any) -> str:
    """File permissions as octal text, ``"0660"``, or nothing. Raises ValueError."""
    if value == "":
        return ""
    if not isinstance(value, str) or not re.fullmatch(r"(0o?)?[0-7]{3}", value):
        raise ValueError('must be octal text such as "0660"')
    return "0" + value[-3:]


def log_level(value: Any) -> str:
    """A level's name. Raises ValueError."""
    return _one_of(value, LOG_LEVELS)


def log_format(value: Any) -> str:
    """``text`` or ``json``. Raises ValueError."""
    return _one_of(value, LOG_FORMATS)


def _one_of(value: Any, known: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value.lower() not in known:
        raise ValueError(f"must be one of {', '.join(known)}")
    return value.lower()


def networks(value: Any) -> tuple[str, ...]:
    """IP networks, ``unix`` for clients of UNIX sockets. Raises ValueError."""
    known = texts(value)
    for each in known:
        if each != "unix":
            try:
                ipaddress.ip_network(each)
            except ValueError as error:
                raise ValueError(f"must be networks such as 10.0.0.0/8, ::1 or unix ({error})") from None
    return known


def listen_addresses(value: Any) -> tuple[str, ...]:
    """Addresses to listen on. Raises ValueError."""
    known = texts(value)
    for each in known:
        scheme, host, _ = split_address(each)
        if scheme != "unix" and not host:
            raise ValueError("must name a host; * means every address of this machine")
    return known


def host(value: Any) -> str:
    """A host as ``tcp://`` takes it; brackets around an IPv6 address are taken off. Raises ValueError."""
    given = text(value)
    bare = given[1:-1] if given.startswith("[") and given.endswith("]") else given
    if not bare:
        raise ValueError("must be an address or a name; * means every address of this machine")
    try:
        split_host_port(f"[{bare}]:0" if ":" in bare else f"{bare}:0")
    except ValueError:
        raise ValueError("must be an address or a name") from None
    return bare


def host_names(value: Any) -> tuple[str, ...]:
    """Names as an HTTP client gives them, in lower case. Raises ValueError."""
    known = tuple(each.lower().removesuffix(".") for each in texts(value))
    for each in known:
        if not re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]", each):
            raise ValueError("must be names or addresses without a port, an IPv6 address in brackets")
    return known


def host_port(value: Any) -> str:
    """``HOST:PORT``, ``:PORT``, or nothing. Raises ValueError."""
    if value != "":
        split_host_port(text(value))
    return str(value)


def handler_name(value: Any) -> str:
    """``package.module:name``, or nothing. Raises ValueError."""
    if value != "" and not (isinstance(value, str) and re.fullmatch(rf"{_DOTTED}:{_DOTTED}", value)):
        raise ValueError("must be package.module:function or package.module:Service")
    return str(value)


def backplane_url(value: Any) -> str:
    """The URL of a Redis, ``none``, or nothing. Raises ValueError."""
    given = text(value)
    if given in ("", "none"):
        return given
    try:
        url = urlsplit(given)
        named = url.path if url.scheme == "unix" else url.hostname
        if url.scheme in ("redis", "rediss", "unix") and named and url.port != 0:
            return given
    except ValueError:  # a port that is none, or half an IPv6 address
        pass
    raise ValueError("must be redis://HOST:PORT, rediss://HOST:PORT, unix:///PATH or none")


def without_secrets(shown: str) -> str:
    """A text in which the passwords of URLs are replaced by ``***``."""
    shown = re.sub(r"(?<=://)([^/@\s:]*):[^@\s]*(?=@)", r"\1:***", shown)
    return re.sub(r"(?<=[?&])((?:ssl_)?password)=[^&\s]*", r"\1=***", shown)
