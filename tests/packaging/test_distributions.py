"""The wheel and the source distribution: what is in them, and that the wheel works alone with each extra.

Each command is tried outside of the checkout, in a folder of a user's that has folders named as our packages.
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path

import pytest

import chat_gevent
from tests.operate import exchange
from tests.packaging.environments import EXTRAS, Environment, clean, make
from tests.redis_server import RedisServer

ROOT = Path(chat_gevent.__file__).parents[1]
PACKAGES = ("chat_gevent", "loadtest", "benchmarks")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the source distribution, the wheel built from the latter, as installers do."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (source,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, source


def in_the_tree(*packages: str) -> set[str]:
    """The files of packages, less those that git ignores, and without the measured results."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *packages],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return {file for file in listed if not file.startswith("benchmarks/results/")}


def test_the_wheel_has_the_packages_and_nothing_else(built: tuple[Path, Path]) -> None:
    """Modules, types, pages, templates, the schema and C sources; no tests, no results; and the licence."""
    with zipfile.ZipFile(built[0]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        (licence,) = [name for name in wheel.namelist() if name.endswith("/licenses/LICENSE")]
        assert wheel.read(licence) == (ROOT / "LICENSE").read_bytes()
    assert names == in_the_tree(*PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert {"benchmarks/measure/generator/generator.c", "benchmarks/reports/schema/report-1.json"} <= names
    assert {"chat_gevent/OPERATING.md", "loadtest/PROTOCOLS.md", "loadtest/show/templates/page.html"} <= names


def test_the_source_distribution_has_what_is_needed_to_build_document_and_test(
    built: tuple[Path, Path],
) -> None:
    """All of the tree except the measured results, and nothing that git ignores."""
    with tarfile.open(built[1]) as source:
        names = {name.partition("/")[2] for name in source.getnames()}
    assert names - {"PKG-INFO"} == in_the_tree(".")


def test_the_metadata_is_fit_for_an_index(built: tuple[Path, Path]) -> None:
    """``twine check --strict`` finds nothing; every extra is named, and every Python that is tested."""
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout
    with zipfile.ZipFile(built[0]) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith("/METADATA")]
        headers = message_from_bytes(wheel.read(name))
    assert headers["Version"] == chat_gevent.__version__
    assert set(filter(None, EXTRAS)) <= set(headers.get_all("Provides-Extra", []))
    for minor in (11, 12, 13):
        assert f"Programming Language :: Python :: 3.{minor}" in headers.get_all("Classifier", [])
    core = [each for each in headers.get_all("Requires-Dist", []) if "extra ==" not in each]
    assert [each.partition(">")[0] for each in core] == ["gevent"]


@pytest.fixture(scope="session", params=EXTRAS, ids=lambda extra: extra or "none")
def environment(
    request: pytest.FixtureRequest, built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Environment]:
    """An extra, and a bare environment that has the wheel with that one alone."""
    extra: str = request.param
    return extra, make(tmp_path_factory.mktemp(f"with-{extra or 'none'}"), built[0], extra)


@contextlib.contextmanager
def serving(environment: Environment, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``chat-gevent serve`` of an environment, and its address."""
    command = environment.command("serve", "--port", "0", *arguments)
    server = subprocess.Popen(
        command,
        cwd=environment.folder,
        env=clean(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        line = server.stdout.readline() if select.select([server.stdout], [], [], 60)[0] else ""
        assert line.startswith("ready tcp://"), line
        yield server, line.split()[1]
        server.send_signal(signal.SIGTERM)
        _, errors = server.communicate(timeout=60)
        assert server.returncode == 0, errors
        assert "Traceback" not in errors
    finally:
        server.kill()
        server.communicate()


@pytest.mark.timeout(600)
def test_each_command_with_each_extra_alone(environment: tuple[str, Environment], tmp_path: Path) -> None:
    """Server, client and limits need none; every other command works with its extra, and names it without."""
    extra, place = environment
    assert place.run(place.command("--version")).stdout == f"chat-gevent {chat_gevent.__version__}\n"
    assert "chat-gevent serve" in place.run(place.command()).stderr
    assert "open files" in place.run(place.command("limits", "--clients", "1000")).stdout
    with serving(place) as (_, url):
        port = url.rpartition(":")[2]
        for start in (place.command(), place.python("-P", "-m", "chat_gevent")):
            assert place.run([*start, "client", "--port", port, "hello"]).stdout == "Received: hello\n"
        load(extra, place, url, tmp_path)
    benchmarks(extra, place, tmp_path)
    metrics(extra, place)
    backplane(extra, place, tmp_path)
    workers(extra, place)
    found = place.run(place.python("-P", "-c", "import argcomplete"))
    assert (found.returncode == 0) == (extra == "completion")


def refused(done: subprocess.CompletedProcess[str], extra: str) -> None:
    """A command that needs an extra says in one line which."""
    assert done.returncode in (1, 2), done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert f"chat-gevent[{extra}]" in line


def load(extra: str, place: Environment, url: str, folder: Path) -> None:
    """The load test, on a server that runs."""
    report = str(folder / "load.json")
    options = ["--host", url, "--headless", "-u", "2", "-r", "2", "-t", "1s", "--report", report]
    for start in (place.command("loadtest"), place.python("-P", "-m", "loadtest")):
        done = place.run([*start, *options])
        if extra == "loadtest":
            assert done.returncode == 0, done.stderr
            assert Path(report).exists()
            assert "record" in place.run([*start, "--help"]).stdout
            assert place.run([*start, "record", "--help"]).returncode == 0
        else:
            refused(done, "loadtest")


def benchmarks(extra: str, place: Environment, folder: Path) -> None:
    """The benchmarks: a small run, and a comparison of it."""
    report = str(folder / "confirm.json")
    size = ["--connections", "20", "--blocks", "1", "--seconds", "0.2", "--warmup", "0"]
    run = ["run", "confirm", "--servers", "chat_gevent,threads", *size, "--output", report]
    for command in (
        place.command("bench", *run),
        place.command("compare", report),
        place.command("bench", "list"),
        place.python("-P", "-m", "benchmarks", "show", report),
    ):
        done = place.run(command)
        if extra == "bench":
            assert done.returncode in (0, 3), done.stdout + done.stderr
            assert "chat_gevent" in done.stdout
        else:
            refused(done, "bench")


def metrics(extra: str, place: Environment) -> None:
    """The admin pages."""
    if extra == "admin":
        with serving(place, "--admin", ":0") as (server, _):
            assert server.stderr is not None
            line = server.stderr.readline()
            while "admin pages at http://" not in line:
                line = server.stderr.readline()
            host, _, port = line.partition("http://")[2].split()[0].partition(":")
            with socket.create_connection((host, int(port)), 30) as client:
                client.sendall(f"GET /metrics HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n".encode())
                page = b"".join(iter(lambda: client.recv(65536), b""))
            assert b"chat_gevent_connections" in page
    else:
        refused(place.run(place.command("serve", "--port", "0", "--admin", ":0")), "admin")


def backplane(extra: str, place: Environment, folder: Path) -> None:
    """Broadcasts over Redis."""
    if extra == "redis":
        redis = RedisServer(folder)
        try:
            with serving(place, "--backplane", redis.url, "--handler", "chat_gevent.rooms:Rooms"):
                pass
        finally:
            redis.kill()
    else:
        options = ("--backplane", "redis://127.0.0.1:1", "--handler", "chat_gevent.rooms:Rooms")
        refused(place.run(place.command("serve", "--port", "0", *options)), "redis")


def workers(extra: str, place: Environment) -> None:
    """gunicorn with our worker."""
    if extra != "workers":  # then there is no gunicorn either that would ask for our worker
        done = place.run(place.python("-P", "-c", "from chat_gevent.workers import ChatWorker"))
        assert "No module named 'gunicorn'" in done.stderr
        return
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = place.python("-P", "-m", "gunicorn", "-k", "chat_gevent.workers.ChatWorker")
        command += ["-b", f"fd://{listener.fileno()}", "chat_gevent.confirm:confirm"]
        arbiter = subprocess.Popen(
            command, cwd="/", env=clean(), pass_fds=[listener.fileno()], stderr=subprocess.DEVNULL
        )
    try:
        with socket.create_connection(("127.0.0.1", port), 60) as client:
            exchange(client, b"hello")
        arbiter.terminate()
        assert arbiter.wait(60) == 0
    finally:
        arbiter.kill()
        arbiter.wait()
