"""A server of another revision, wheel or folder runs the code of that one, beside the present one."""

from __future__ import annotations

import shutil
import socket
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.measure import runner
from benchmarks.measure.launch import PACKAGES
from benchmarks.measure.revisions import locate
from benchmarks.measure.scenarios import SCENARIOS
from benchmarks.measure.servers import find
from benchmarks.measure.servers.process import ServerProcess
from tests.conftest import require_tool


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the package as it is but for its replies; the cache is another one too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "other"
    shutil.copytree(PACKAGES / "chat_gevent", folder / "chat_gevent")
    confirm = folder / "chat_gevent" / "confirm.py"
    text = confirm.read_text()
    assert "Received: " in text
    confirm.write_text(text.replace("Received: ", "Accepted: "))
    return folder


def as_folder(other: Path) -> str:
    """The folder itself."""
    return str(other)


def as_wheel(other: Path) -> str:
    """Zipped, with what a wheel has beside the package."""
    wheel = other.parent / "chat_gevent-9-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in other.rglob("*.py"):
            archive.write(file, file.relative_to(other))
        archive.writestr("chat_gevent-9.dist-info/METADATA", "Name: chat_gevent\n")
    return str(wheel)


@pytest.mark.parametrize("make", [as_folder, as_wheel])
def test_its_own_code_answers(other: Path, make: Callable[[Path], str]) -> None:
    """The reply is that of the changed package, from a process of the present environment."""
    server = find(f"chat_gevent@{make(other)}")
    with (
        ServerProcess(server) as process,
        socket.create_connection((process.host, process.port), 30) as client,
    ):
        client.sendall(b"hello\n")
        assert client.recv(100) == b"Accepted: hello\n"
    assert server.source_hash() != find("chat_gevent").source_hash()
    assert "/" not in server.name


def test_a_git_revision_is_what_was_committed(other: Path) -> None:
    """The package as committed, not as it is in the folder now; the second time it is there already."""
    require_tool("git")
    git = ["git", "-C", str(other), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"], ["tag", "first"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    (other / "chat_gevent" / "confirm.py").write_text("broken")
    packages, revision = locate("first", other)
    assert "Accepted: " in (packages / "chat_gevent" / "confirm.py").read_text()
    assert packages.name.startswith(revision.removeprefix("revision "))
    assert locate("first", other) == (packages, revision)
    assert [each.name for each in packages.parent.iterdir()] == [packages.name]


@pytest.mark.parametrize("name", ["chat_gevent@no-such-revision", "chat_gevent@/tmp", "threads@HEAD"])
def test_what_cannot_be_found_is_one_line(name: str) -> None:
    """A wrong name says what is wrong with it."""
    with pytest.raises(ValueError, match=r"no revision|no package|no revisions"):
        find(name)


def test_two_revisions_in_one_run(other: Path, tmp_path: Path) -> None:
    """They are two servers of the report, measured in the same blocks, each with its hash and what it is."""
    confirm = other / "chat_gevent" / "confirm.py"
    confirm.write_text(confirm.read_text().replace("Accepted: ", "Received: ") + "\n# as before\n")
    scenario = SCENARIOS["confirm"]
    servers = [find(f"chat_gevent@{other}"), find("chat_gevent")]
    few = {"connections": 5, "seconds": 0.2, "warmup": 0, "blocks": 2, "slices": 2}
    report = runner.run(scenario, servers, {**scenario.defaults, **few}, tmp_path / "report.json")
    assert report.complete, report.warnings
    old, new = report.servers
    assert (old.name, new.name) == ("chat_gevent@other", "chat_gevent")
    assert old.version == f"folder other, {new.version}"
    assert old.command == new.command
    assert old.source_hash != new.source_hash
    assert {(trial.server, trial.block) for trial in report.trials} == {
        (server.name, block) for server in report.servers for block in range(2)
    }
