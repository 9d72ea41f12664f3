"""The parsers of PROXY headers: what the specification has, and nothing near it."""

from __future__ import annotations

import pytest

from chat_gevent.errors import HeaderError
from chat_gevent.proxy_protocol import parse_v1


@pytest.mark.parametrize(
    "line",
    [
        b"PROXY TCP4 192.0.2.7 192.0.2.1 4321 1\n",
        b"PROXY UNKNOWN\n",
        b"PROXY TCP4 192.0.2.7 nonsense 4321 1\r\n",
        b"PROXY TCP4 192.0.2.7 ::1 4321 1\r\n",
        b"PROXY TCP6 2001:db8::7 192.0.2.1 4321 1\r\n",
        b"PROXY TCP6 2001:db8::7 ::1%eth0 4321 1\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 4321 65536\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 4321 x\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 04321 1\r\n",
        b"PROXY TCP4  192.0.2.7 192.0.2.1 4321 1\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 4321 1 \r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 4321 1\r\r\n",
        b"PROXX TCP4 192.0.2.7 192.0.2.1 4321 1\r\n",
    ],
)
def test_what_is_near_a_version_1_header(line: bytes) -> None:
    """No CR, a destination that is none, a port out of range, one space too many: each is refused."""
    with pytest.raises(HeaderError, match="no PROXY v1 header"):
        parse_v1(line)
