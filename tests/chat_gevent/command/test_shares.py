"""How limits are shared out among workers."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_gevent.command.config import ServeSettings
from chat_gevent.command.handler import StartError
from chat_gevent.command.shares import count_workers, most_of_all, settings_of_worker, share


@given(st.integers(0, 10**6), st.integers(1, 64))
def test_shares_add_up_and_are_even(total: int, workers: int) -> None:
    """Nothing is lost or made up, and no worker has more than one above another."""
    shares = [share(total, index, workers) for index in range(workers)]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1


def test_budgets_are_shared_and_no_limit_stays_none() -> None:
    """Budgets of bytes for all clients are divided; what is for one client is not."""
    settings = ServeSettings(input_total_bytes=1001, outbox_total_bytes=4000, outbox_bytes=500)
    first, last = (settings_of_worker(settings, index, 4) for index in (0, 3))
    assert (first.input_total_bytes, last.input_total_bytes) == (251, 250)
    assert (last.outbox_total_bytes, last.outbox_bytes) == (1000, 500)
    assert settings_of_worker(ServeSettings(input_total_bytes=0), 0, 4).input_total_bytes == 0


def test_workers_are_counted_and_each_has_a_client() -> None:
    """0 is one for each core that this process may use; fewer clients than workers are refused."""
    assert count_workers(ServeSettings(workers=0)) == len(os.sched_getaffinity(0))
    assert count_workers(ServeSettings(workers=3)) == 3
    assert most_of_all(ServeSettings(max_connections=4), 4) == 4
    with pytest.raises(StartError, match="at least 1 for each of 5 workers"):
        most_of_all(ServeSettings(max_connections=4), 5)
