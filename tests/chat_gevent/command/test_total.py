"""Sums over workers: counts of all, what is now of the living only, and the same number in any order."""

from __future__ import annotations

import json
from dataclasses import fields
from itertools import permutations

from chat_gevent.command.metrics import LAG_BUCKETS
from chat_gevent.command.snapshot import BackplaneFigures, HandlerFigures, ProcessFigures, Snapshot
from chat_gevent.command.total import add_up, pack, to_bytes, unpack
from tests.chat_gevent.command.figures import figures

FULL = Snapshot(
    connections=2,
    connections_limit=3,
    accepted=5,
    refused={"server-full": 7},
    closed={"exit": 11, "slow": 0},
    messages=13,
    received_bytes=17,
    sent_bytes=19,
    errors={"invalid-utf8": 23},
    pushes=29,
    pushes_dropped=31,
    queued_bytes=37,
    broadcasts=41,
    broadcast_seconds=0.43,
    workers_busy=47,
    workers_free=53,
    lag_bounds=LAG_BUCKETS,
    lag_counts=tuple(range(len(LAG_BUCKETS) + 1)),
    lag_seconds=0.59,
    lag_p50=0.061,
    lag_p99=0.067,
    handler=HandlerFigures(71, 0.73, 79),
    backplane=BackplaneFigures(True, 83, 89, 97),
    draining=True,
    log_lines_dropped=101,
    process=ProcessFigures(1.03, 107, 109, 113),
)


def test_a_snapshot_survives_its_way_through_bytes() -> None:
    """Every figure comes back, and where there is no handler and no backplane that comes back as well."""
    for each in (FULL, figures()):
        assert unpack(json.loads(to_bytes(pack(each)))) == each


def test_every_figure_of_two_workers_is_added_or_chosen() -> None:
    """The sum of two alike is twice each figure, but for quantiles, bounds and yes or no."""
    total = add_up([FULL, FULL])
    chosen = {"lag_bounds", "lag_p50", "lag_p99", "draining"}
    for each in fields(Snapshot):
        one, both = getattr(FULL, each.name), getattr(total, each.name)
        if each.name in chosen:
            assert both == one, each.name
        elif isinstance(one, dict):
            assert both == {key: 2 * value for key, value in one.items()}
        elif each.name == "lag_counts":
            assert both == tuple(2 * value for value in one)
        elif each.name not in ("handler", "backplane", "process"):
            assert both == 2 * one, each.name
    assert total.handler == HandlerFigures(142, 1.46, 158)
    assert total.backplane == BackplaneFigures(True, 166, 178, 194)
    assert total.process == ProcessFigures(2.06, 214, 218, 226)


def test_of_those_gone_only_counts_remain() -> None:
    """Connections, queues, running calls and open files of a worker that is gone are nobody's any more."""
    total = add_up([], FULL)
    assert (total.messages, total.closed["exit"], total.lag_counts) == (13, 11, FULL.lag_counts)
    assert (total.connections, total.connections_limit, total.queued_bytes) == (0, 0, 0)
    assert (total.workers_busy, total.lag_p99, total.draining) == (0, 0.0, False)
    assert total.handler == HandlerFigures(71, 0.73, 0)
    assert total.process == ProcessFigures(1.03, 0, 0, 0)


def test_times_add_up_to_the_same_in_any_order() -> None:
    """Whoever goes first: the sum of seconds does not become less by as little as a bit."""
    parts = [figures(lag_seconds=each) for each in (0.1, 0.2, 0.3, 1e-6, 123456.7)]
    sums = set()
    for order in permutations(parts):
        gone = None
        for index, each in enumerate(order):
            sums.add(add_up(order[index:], gone).lag_seconds)
            gone = add_up([], add_up([each], gone))
    assert sums == {123457.300001}


def test_a_backplane_is_connected_where_all_workers_are() -> None:
    """One worker whose broadcasts reach nobody shows in the sum; with one gone, nothing is said of it."""
    lost = figures(backplane=BackplaneFigures(False, 1, 0, 0))
    total = add_up([FULL, lost]).backplane
    assert total is not None
    assert not total.connected
    total = add_up([FULL], lost).backplane
    assert total == BackplaneFigures(True, 84, 89, 97)
