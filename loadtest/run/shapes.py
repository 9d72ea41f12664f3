"""Shapes: how the number of users changes over a test. Chosen with ``--shape``.

``ramp``   from none to all users in ``--shape-time``, then the end
``steps``  more users every ``--step-time``, until p99 or errors cross a limit: the knee
``spike``  a tenth of the users, all of them, a tenth again; a third of ``--shape-time`` each
``soak``   all users within a tenth of ``--shape-time`` (at most a minute), then the rest of it

Locust asks a shape once a second, in the single process or on the master.
"""

from __future__ import annotations

import math
from time import time
from typing import Any, ClassVar

from locust import LoadTestShape
from locust.runners import MasterRunner

from benchmarks.reports.histograms import quantile, samples_needed
from loadtest.count.run_record import measured_seconds, messages_in
from loadtest.count.thresholds import parse_share, parse_time_us
from loadtest.errors import OptionsError
from loadtest.run.load_test import LoadTest

Tick = tuple[int, float] | None
REPORT_SECONDS = 4
"""How long it may take until the master has what workers counted: they report every 3 s."""


class LoadShape(LoadTestShape):
    """What the shapes share. ``top`` is the number of users at the top, ``length`` is in seconds."""

    abstract: ClassVar[bool] = True
    use_common_options: ClassVar[bool] = True

    def __init__(self, load_test: LoadTest, options: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.load_test = load_test
        self.runner = load_test.environment.runner
        self.top = _positive(options, "shape_users")
        self.length = float(_positive(options, "shape_time"))
        self._tick = 0, 1.0

    def tick(self) -> Tick:
        """Users and how many to add or remove a second; None ends the test."""
        users = self.users_at(self.get_run_time())  # type: ignore[no-untyped-call]
        if users is None:
            return None
        if users != self._tick[0]:  # the whole change within a second, which is when Locust asks next
            now = self.runner.user_count if self.runner else 0
            self._tick = users, max(1.0, float(abs(users - now)))
        return self._tick

    def users_at(self, seconds: float) -> int | None:
        """How many users there should be so long after the start; None after the end."""
        raise NotImplementedError


class Ramp(LoadShape):
    """From none to all."""

    def users_at(self, seconds: float) -> int | None:
        """Straight up."""
        return (
            max(1, min(self.top, math.ceil(self.top * seconds / self.length)))
            if seconds < self.length
            else None
        )


class Spike(LoadShape):
    """Calm, storm, calm."""

    def users_at(self, seconds: float) -> int | None:
        """All of them in the second third."""
        third = int(3 * seconds / self.length)
        return None if third > 2 else self.top if third == 1 else max(1, self.top // 10)


class Soak(LoadShape):
    """The same load for long."""

    def users_at(self, seconds: float) -> int | None:
        """A short ramp, then all."""
        ramp = min(60.0, self.length / 10)
        if seconds >= self.length:
            return None
        return max(1, min(self.top, math.ceil(self.top * (seconds + 1) / ramp)))


class Steps(LoadShape):
    """More and more users, until the limits are crossed or there are no more."""

    def __init__(self, load_test: LoadTest, options: Any) -> None:
        super().__init__(load_test, options)
        self.step_users = _positive(options, "step_users")
        self.step_time = float(_positive(options, "step_time"))
        try:
            self.p99_us = parse_time_us(options.knee_p99)
            self.errors = parse_share(options.knee_errors)
        except ValueError as error:
            raise OptionsError(f"--knee-p99, --knee-errors: {error}") from None
        late = REPORT_SECONDS if isinstance(self.runner, MasterRunner) else 1
        if self.step_time < late + 2:
            raise OptionsError(f"--step-time is at least {late + 2} s here, or a step has nothing to look at")
        self._late = late
        self.reset_time()

    def reset_time(self) -> None:
        """Start over."""
        super().reset_time()  # type: ignore[no-untyped-call]
        self.step = 1
        self._step_began = time()
        self._held = ""
        self.load_test.record.keep_seconds = math.ceil(self.step_time) + 15

    def users_at(self, seconds: float) -> int | None:
        """The users of the step; a step ends with a judgement."""
        self.load_test.record.keep_seconds = math.ceil(self.step_time) + 15  # a test has a record of its own
        if time() - self._step_began >= self.step_time:
            broke = self._judge()
            last = self.step * self.step_users >= self.top
            if broke or last:
                self._tell(broke)
                return None
            self.step += 1
            self._step_began = time()
        return min(self.top, self.step * self.step_users)

    def _judge(self) -> str:
        """How the step that ends broke a limit; empty where it held."""
        now = time()
        seconds = self.load_test.record.between(self._step_began + 1, now - self._late)
        messages = messages_in(seconds)
        answered = messages.passed + messages.failed
        users = min(self.top, self.step * self.step_users)
        if not answered:
            return f"{users} users: nothing was answered"
        latencies = messages.response or messages.latencies
        p99 = quantile(latencies, 0.99) if latencies else 0
        share = messages.failed / answered
        rate = messages.passed / measured_seconds(second.spans for second in seconds)
        few = "" if messages.passed >= samples_needed(0.99) else f" of only {messages.passed:,} samples"
        said = f"{rate:,.0f} messages/s with {users} users (p99 {p99 / 1e3:.3f} ms{few}, errors {share:.2%})"
        if p99 > self.p99_us or share > self.errors or not messages.passed:
            return said
        self._held = said
        return ""

    def _tell(self, broke: str) -> None:
        limits = f"p99 {self.p99_us / 1e3:g} ms and {self.errors:.2%} errors"
        held = f"highest rate that held {limits}: {self._held}" if self._held else f"no step held {limits}"
        end = f"; broken by {broke}" if broke else "; no step broke it"
        self.load_test.notes.append(held + end)


def _positive(options: Any, name: str) -> int:
    option = f"--{name.replace('_', '-')}"
    try:
        number = float(getattr(options, name))
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise OptionsError(f"{option} {getattr(options, name)} is not a number above 0")
    return math.ceil(number)


def make_shape(load_test: LoadTest, options: Any) -> LoadShape | None:
    """The shape that ``options`` ask for, or None. Raises OptionsError."""
    kinds: dict[str, type[LoadShape]] = {"ramp": Ramp, "steps": Steps, "spike": Spike, "soak": Soak}
    kind = kinds.get(getattr(options, "shape", "none"))
    return kind(load_test, options) if kind else None
