"""When clients that must go are told to come back: in which words, for which reasons, how far spread."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from chat_gevent.confirm import ErrorCode, error_code, error_text, retry_seconds, with_retry
from chat_gevent.framing import LINE, LengthPrefix
from chat_gevent.lifecycle import EXPLANATIONS, explain
from chat_gevent.service import Service
from tests.conftest import wait_until
from tests.peers import Peer

Serve = Callable[..., Any]


@pytest.mark.parametrize("code", EXPLANATIONS)
def test_who_may_come_back_is_told_when(code: str) -> None:
    """Whoever is not at fault; an idle client is not told, and nobody is where the spread is 0."""
    told = retry_seconds(error_text(code, explain(code, 5.0)))
    assert (told is not None) == (code != ErrorCode.IDLE_TIMEOUT)
    assert retry_seconds(error_text(code, explain(code, 0))) is None


def test_the_moments_are_spread_over_the_setting() -> None:
    """A thousand clients that are told in one moment come back over the whole time, and none at once."""
    told = [retry_seconds(error_text("server-full", explain("server-full", 8.0))) for _ in range(1000)]
    found = sorted(each for each in told if each is not None)
    assert len(found) == 1000
    assert 0.1 <= found[0] < 0.4
    assert 7.6 < found[-1] <= 8.0
    assert 3.4 < found[500] < 4.6


def test_the_hint_is_read_from_an_error_only() -> None:
    """Not from a confirmation of such a text, nor where something follows; the code is the same with it."""
    told = error_text("shutting-down", with_retry("gone", 2.26))
    assert told == "Error: shutting-down: gone; retry in 2.3 s"
    assert retry_seconds(told) == 2.3
    assert error_code(told) == "shutting-down"
    for reply in (f"Received: {told}", told + ".", "Error: shutting-down: gone; retry in -1 s", ""):
        assert retry_seconds(reply) is None
    assert error_code(f"Received: {told}") == ""


def test_a_service_has_the_hint_in_its_own_words(serve: Serve) -> None:
    """Its ``error_reply`` is given the explanation with the hint, whatever the framing."""

    class Words(Service):
        framing = LengthPrefix(1)

        def error_reply(self, code: str, explanation: str) -> str:
            return f"{code}/{explanation}"

    server = serve(Words(), max_connections=1, retry_spread=3)
    with Peer(server.address) as inside:
        wait_until(lambda: server.core.registry.live == 1)
        with Peer(server.address) as refused:
            told = refused.rest()
        assert told[0] == len(told) - 1
        assert re.fullmatch(rb"server-full/no more .*; retry in [0-3]\.[0-9] s", told[1:])
        reader = gevent.spawn(inside.rest)
        server.stop(30)
        assert re.fullmatch(rb".shutting-down/the .*; retry in [0-3]\.[0-9] s", reader.get(timeout=30))


def test_those_refused_at_once_are_told_as_well(serve: Serve) -> None:
    """Beyond the refused that are waited for there is no connection, but the same last word."""
    server = serve(framing=LINE, max_connections=1)
    with Peer(server.address) as inside:
        inside.ask(b"hello")
        peers = [Peer(server.address) for _ in range(40)]
        told = [each.rest().decode().rstrip("\n") for each in peers]
        assert all(retry_seconds(each) for each in told)
        assert len(set(told)) > 20
        for each in peers:
            each.close()
