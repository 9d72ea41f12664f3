"""A masked value that a locustfile still has in clear is found, wherever it stands."""

from __future__ import annotations

import pytest

from loadtest.errors import NothingWritten
from loadtest.record.guard import check
from loadtest.record.secrets import Value

TEXT = '''"""Recorded by ``python -m loadtest record``; what a reply must be is guessed, so read it."""

import os
import re

from locust import task

from loadtest.framing import Delimiter
from loadtest.tcp_user import TcpUser

SECRET_1 = os.environ["SECRET_1"]  # was masked


class RecordedUser(TcpUser):
    host = "tcp://127.0.0.1:7"
    framing = Delimiter(b"quit")

    def on_connect(self):
        self.client.receive(name="GREETING", expect=b"hello")
        self.client.request(f"PASS {SECRET_1}", name="PASS", expect=re.compile(rb"^hello \\S+\\Z"))

    @task(2)
    def conversation_1(self):
        # differed: '***', 'nobody'
        self.client.request("quit", name="QUIT", expect=b"bye")
        self.client.close()  # the next task connects anew, as the recorded client did
'''


def values(data: bytes) -> list[Value]:
    """One masked value."""
    return [Value("mask", data, "SECRET_1")]


@pytest.mark.parametrize(
    ("data", "found", "leaking"),
    [
        (b"hunter2", '"quit", name', '"say hunter2 now", name'),
        (b"hunter2", 'f"PASS {SECRET_1}"', 'f"PASS {SECRET_1} hunter2"'),
        (b"hunter2", 'name="PASS"', 'name="HUNTER2"'),
        (b"hunter2!", 'name="PASS"', 'name="HUNTER2"'),
        (b"hunter.2", "hello \\S+", "hello hunter\\.2"),
        (b"hunt\xe9r", 'b"hello"', 'b"<hunt\\xe9r>"'),
        (b"hunt\xe9r", "hello \\S+", "hello hunt\\xe9r"),
        (b'hun"ter', "hello \\S+", "hello hun\\x22ter"),
        (b"it's", "'nobody'", '"it\'s"'),
        (b"hunt\xe9r", "'nobody'", "'hunt\\\\xe9r'"),
        (b"example", "127.0.0.1", "db.example.com"),
    ],
)
def test_a_masked_value_is_found(data: bytes, found: str, leaking: str) -> None:
    """In strings, parts of strings, names, expressions, comments and the host, escaped or not."""
    check(TEXT, values(data))
    assert found in TEXT
    with pytest.raises(NothingWritten, match="what was masked as SECRET_1 in clear"):
        check(TEXT.replace(found, leaking), values(data))


@pytest.mark.parametrize(
    "data",
    [b"recorded", b"GREETING", b"SECRET_1", b"on_connect", b"pass", b"request", b"Delimiter", b"bye", b"S+"],
)
def test_what_the_recorder_says_itself_is_no_leak(data: bytes) -> None:
    """Nor is a name that its message begins with in any case. Values of three bytes are not looked for."""
    check(TEXT, values(data))


def test_a_unique_value_may_stand() -> None:
    """Only what is masked may not."""
    check(TEXT, [Value("unique", b"quit", "self.unique_1")])
    with pytest.raises(NothingWritten):
        check(TEXT, values(b"quit"))
