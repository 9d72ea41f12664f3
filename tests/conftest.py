"""What all tests share: servers to talk to, in this process and as the real command, and tools to demand."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.machine import forget, held

# The same examples for everybody in CI, where a failure must repeat; others each time elsewhere.
# HYPOTHESIS_PROFILE=long looks for longer: minutes, for a change of how clients are parked and served.
# "short" is for mutants, which are tested by the hundred; a failure is not made smaller there.
settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", settings.get_profile("local"), max_examples=3000)
settings.register_profile(
    "short", settings.get_profile("ci"), max_examples=30, phases=[Phase.explicit, Phase.generate]
)
pytest.register_assert_rewrite("tests.peers")
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "local"))

# A shell starts what runs in the background with SIGINT ignored, nohup does so with SIGHUP, and that is
# inherited: tests that interrupt a command, or take its terminal, need both to be as they are at a terminal.
for _number, _usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that are to be alone behind all others, where nobody has to wait for them."""
    items.sort(key=lambda item: item.get_closest_marker("alone") is not None)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Run a test beside others, or alone if it is marked so; see :mod:`tests.machine`."""
    with held(alone=item.get_closest_marker("alone") is not None):
        return (yield)


_runs: set[str] = set()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Note the run of which other processes are told, in the process that they belong to."""
    _runs.add(node.workerinput["testrunuid"])


def pytest_unconfigure() -> None:
    """Leave no files of :mod:`tests.machine` behind, once those processes have ended."""
    for run in _runs:
        forget(run)


def require(there: object, what: str) -> None:
    """Skip the test where something that it needs is not there; under CI=true that is a failure."""
    if not there:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"needs {what}")


def require_tool(name: str) -> str:
    """The path of a command that a test needs; without it the test is skipped, but fails under CI=true."""
    path = shutil.which(name)
    require(path, f"the command {name!r}, which is not installed")
    return str(path)


def command(*arguments: str) -> list[str]:
    """The installed ``chat-gevent`` command with ``arguments``."""
    return [str(Path(sys.executable).with_name("chat-gevent")), *arguments]


@pytest.fixture(autouse=True)
def _log_as_imported() -> Iterator[None]:
    """Undo what a test that sets up the log in this process, as the command does, did to the logger."""
    log = logging.getLogger("chat_gevent")
    handlers, level, propagates = list(log.handlers), log.level, log.propagate
    yield
    log.handlers[:] = handlers
    log.setLevel(level)
    log.propagate = propagates


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Start a ChatServer in this process, with ChatServer's arguments less the listener, as often as called.

    Settings may be given by name. The test fails if anything raised in the hub meanwhile.
    """
    import gevent
    from gevent import socket as gevent_socket

    from chat_gevent.server import ChatServer
    from chat_gevent.settings import Settings
    from tests.peers import close_all

    raised: list[str] = []
    hub = gevent.get_hub()

    def handle_error(where: Any, kind: Any, value: Any, _traceback: Any) -> None:
        raised.append(f"{kind.__name__}: {value} in {where!r}")

    monkeypatch.setattr(hub, "handle_error", handle_error)
    started: list[ChatServer] = []
    names = Settings.__dataclass_fields__

    def start(handler: Any = None, **options: Any) -> ChatServer:
        chosen = {name: options.pop(name) for name in list(options) if name in names}
        listener = options.pop("listener", ("127.0.0.1", 0))
        server = ChatServer(listener, handler, settings=Settings(**chosen), **options)
        started.append(server)
        server.raised = raised  # type: ignore[attr-defined]  # for tests that expect an error
        server.start()
        return server

    yield start
    close_all()
    for server in started:
        server.stop(0)
    with gevent_socket.socket():  # let the greenlets that were cut off end
        gevent.sleep(0.001)
    assert raised == [], "raised in the hub"


@pytest.fixture(scope="session", params=[0.0, None], ids=["parks", "never-parks"])
def park_after(request: pytest.FixtureRequest) -> float | None:
    """Both values of ``park_after`` in turn; both have to show the same behaviour."""
    value: float | None = request.param
    return value


def wait_until(condition: Callable[[], object], seconds: float = 30, what: str = "") -> None:
    """Wait, letting gevent run, until ``condition()`` holds; fails after ``seconds``."""
    import gevent

    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what or condition}"
        gevent.sleep(0.002)


@pytest.fixture
def operate() -> Iterator[Callable[..., Any]]:
    """Start :class:`tests.operate.ServerProcess` servers with the given arguments; all end with the test."""
    from tests.operate import ServerProcess

    started: list[ServerProcess] = []

    def start(*arguments: str, **options: Any) -> ServerProcess:
        started.append(ServerProcess(*arguments, **options))
        return started[-1]

    yield start
    for each in started:
        each.close()
