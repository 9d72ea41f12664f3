"""Every deploy file passes the check of the program that reads it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from chat_gevent.command.config import load
from chat_gevent.command.deploy import FILES, FOLDER
from tests.chat_gevent.deploy.files import adapted, checked
from tests.conftest import command, require, require_tool
from tests.operate import ServerProcess, exchange, until

INSTALLED = "/opt/chat-gevent/bin/chat-gevent"
MOST_EXPOSED = "15"
"""Bound on systemd's measure of exposure, times ten; 1.4 here, where an unhardened service has 9.6."""


def beside_python(name: str) -> str:
    """A tool that was installed from PyPI beside this Python."""
    path = Path(sys.executable).with_name(name)
    require(path.exists(), f"{name}, which the extra dev brings")
    return str(path)


def test_each_file_is_listed_and_explained_in_a_line() -> None:
    """The command, the folder and the table of its README name the same files, in the same words."""
    assert set(FILES) == {each.name for each in FOLDER.iterdir()}
    table = dict(
        re.findall(r"^\| \[(\S+)\]\(\1\) \| (.+) \|$", (FOLDER / "README.md").read_text(), re.MULTILINE)
    )
    assert table == {name: line for name, line in FILES.items() if name != "README.md"}
    listed = checked(*command("deploy"))
    assert str(FOLDER) in listed
    for name, line in FILES.items():
        assert re.search(rf"^  {re.escape(name)} +{re.escape(line)}$", listed, re.MULTILINE)


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_printed_as_it_is(name: str) -> None:
    """``chat-gevent deploy NAME`` can be sent to a file."""
    done = subprocess.run(command("deploy", name), capture_output=True, timeout=30, check=True)
    assert done.stdout == (FOLDER / name).read_bytes()


def test_an_unknown_file_is_one_line_and_status_2() -> None:
    """As any wrong argument."""
    done = subprocess.run(command("deploy", "nope"), capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "'haproxy.cfg'" in done.stderr


def test_the_settings_are_settings() -> None:
    """The server takes the file, and all that it says counts."""
    loaded = load({}, {}, file=str(FOLDER / "chat-gevent.toml"))
    assert loaded.settings.proxy_from == ("10.0.0.10",)
    assert loaded.settings.admin == "0.0.0.0:12346"
    assert loaded.settings.drain_delay == 5
    assert loaded.settings.drain_timeout == 30


def test_haproxy_takes_its_file() -> None:
    """Without a warning (-dW makes one an error)."""
    checked(require_tool("haproxy"), "-c", "-dW", "-f", FOLDER / "haproxy.cfg")


def units(folder: Path) -> list[Path]:
    """The systemd units as they are, but for the path of the command."""
    made = []
    for name, changes in (
        ("chat-gevent.service", {INSTALLED: command()[0]}),
        ("chat-gevent.socket", {"ListenStream=12345": "ListenStream=12345"}),
    ):
        made.append(folder / name)
        made[-1].write_text(adapted(name, changes))
    return made


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """``systemd-analyze verify`` finds nothing to say, on 252 as on later ones."""
    assert checked(require_tool("systemd-analyze"), "verify", *units(tmp_path)) == ""


def test_the_drop_in_is_for_253_and_later(tmp_path: Path) -> None:
    """The only thing that 252 says of it is that it does not know this type."""
    service, socket = units(tmp_path)
    folder = tmp_path / "chat-gevent.service.d"
    folder.mkdir()
    (folder / "notify-reload.conf").write_text((FOLDER / "notify-reload.conf").read_text())
    analyze = require_tool("systemd-analyze")
    version = re.match(r"systemd (\d+)", checked(analyze, "--version"))
    assert version is not None
    said = checked(analyze, "verify", service, socket)
    if int(version[1]) >= 253:
        assert said == ""
    else:
        assert re.fullmatch(
            r".*notify-reload.conf:\d+: Failed to parse service type, ignoring: notify-reload\n", said
        )


def test_the_unit_is_hardened(tmp_path: Path) -> None:
    """systemd's own measure of what the service could do to the machine is bounded."""
    analyze = require_tool("systemd-analyze")
    checked(analyze, "security", "--offline=true", f"--threshold={MOST_EXPOSED}", units(tmp_path)[0])
    plain = tmp_path / "plain.service"
    plain.write_text("[Service]\nExecStart=/bin/true\n")
    checked(analyze, "security", "--offline=true", f"--threshold={MOST_EXPOSED}", plain, ok=False)


def allowed_calls() -> set[str]:
    """The system calls that the unit's filter lets through, by systemd's own lists."""
    analyze = require_tool("systemd-analyze")
    allowed: set[str] = set()
    for word in re.findall(
        r"^SystemCallFilter=(.*)$", (FOLDER / "chat-gevent.service").read_text(), re.MULTILINE
    ):
        named = expand(analyze, word.removeprefix("~"))
        allowed = allowed - named if word.startswith("~") else allowed | named
    return allowed


def expand(analyze: str, group: str) -> set[str]:
    """The names of the calls of a group, of the groups within it too."""
    names = set()
    for line in checked(analyze, "syscall-filter", group).splitlines()[1:]:
        word = line.strip()
        if word.startswith("@"):
            names |= expand(analyze, word)
        elif word and not word.startswith("#"):
            names.add(word)
    return names


def test_the_server_lives_with_the_units_filter(
    operate: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """Each system call of a server that starts, serves, reloads and drains is one that the unit allows, so is
    each family of sockets, and no memory is writable and executable (MemoryDenyWriteExecute)."""
    trace = tmp_path / "trace"
    server = operate(
        *("--port", "0", "--admin", "127.0.0.1:0", "--config", str(FOLDER / "chat-gevent.toml")),
        *("--drain-delay", "0"),
        prefix=(require_tool("strace"), "-f", "-qq", "-o", str(trace)),
    )
    with server.connect() as client:
        exchange(client, b"hello")
        assert server.ask("/readyz")[0] == server.ask("/metrics")[0] == 200
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
        checked("kill", "-HUP", children[0])
        server.logged("SIGHUP")
        checked("kill", "-TERM", children[0])
        until(lambda: client.recv(1000) == b"", what="the end of the stream")
    assert server.process.wait(30) == 0
    lines = trace.read_text().splitlines()
    used = {found[1] for line in lines if (found := re.match(r"\d+ +(\w+)\(", line))}
    assert {"execve", "epoll_wait", "bind", "accept4"} <= used
    assert used - allowed_calls() == set()
    families = re.search(
        r"^RestrictAddressFamilies=(.*)$", (FOLDER / "chat-gevent.service").read_text(), re.MULTILINE
    )
    assert families is not None
    opened = {word for line in lines for word in re.findall(r" socket\((AF_\w+)", line)}
    assert {"AF_INET"} <= opened <= set(families[1].split())
    executable = [line for line in lines if "PROT_EXEC" in line]
    assert executable
    assert not [line for line in executable if "PROT_WRITE|PROT_EXEC" in line or " mprotect(" in line]


def test_the_container_file_is_linted() -> None:
    """hadolint has nothing to say, not even by the way."""
    assert checked(beside_python("hadolint"), "--failure-threshold", "style", FOLDER / "Containerfile") == ""


def container() -> dict[str, str]:
    """The container file's instructions of its last stage, by name; continued lines are one."""
    text = (FOLDER / "Containerfile").read_text().replace("\\\n", " ").rpartition("\nFROM ")[2]
    return dict(re.findall(r"^([A-Z]+) +(.*)$", text, re.MULTILINE))


def test_what_the_container_runs(operate: Callable[..., ServerProcess]) -> None:
    """With its environment, as its user and as process 1, the server serves; the health check succeeds; and
    its stop signal drains it. (The addresses are the container's own: it gets a network for itself.)"""
    found = container()
    require(os.geteuid() == 0, "root, for namespaces")
    assert json.loads(found["ENTRYPOINT"]) == ["chat-gevent"]
    assert json.loads(found["CMD"]) == ["serve"]
    environment = dict(word.split("=", 1) for word in found["ENV"].split() if word.startswith("CHAT_"))
    assert environment["CHAT_GEVENT_LISTEN"] == "tcp://*:12345"
    check = re.search(r"CMD (\[.*\])", found["HEALTHCHECK"])
    assert check is not None
    user, group = found["USER"].split(":")
    assert int(user) > 0 < int(group)
    isolated = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
    # It may search folders as root does, because this Python may be in one that is closed to others.
    search = "--inh-caps=+dac_read_search --ambient-caps=+dac_read_search"
    drop = f"setpriv --reuid {user} --regid {group} --clear-groups {search}"
    inside = ("sh", "-c", f'ip link set lo up && exec {drop} "$@"', "sh")
    server = operate(prefix=(*isolated, *inside), env=environment)
    first = until(
        lambda: Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    )[0]
    status = Path(f"/proc/{first}/status").read_text()
    assert re.search(r"^NSpid:\t\d+\t1$", status, re.MULTILINE)
    assert re.search(rf"^Uid:\t{user}\t", status, re.MULTILINE)
    enter = ("nsenter", "--net", "--target", first)
    checked(*enter, sys.executable, *json.loads(check[1])[1:])
    assert checked(*enter, *command("client", "hello")) == "Received: hello\n"
    checked("kill", f"-{found['STOPSIGNAL'].removeprefix('SIG')}", first)
    assert server.process.wait(30) == 0
    assert "stopped: 1 messages answered, 0 clients cut off" in server.log
    alone = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
    checked(
        *alone, sys.executable, *json.loads(check[1])[1:], ok=False
    )  # the check fails where nothing serves


def seconds(pattern: str, name: str) -> float:
    """A time in a file, in seconds."""
    found = re.search(pattern, (FOLDER / name).read_text(), re.MULTILINE)
    assert found is not None, f"{pattern} is not in {name}"
    return float(found[1]) * {"h": 3600, "": 1}[found[2]]


def test_the_times_of_the_files_fit_together() -> None:
    """Nobody kills a server that still drains; it says that it will stop for longer than HAProxy needs to see
    that; and no balancer closes a client that the server would, with a reason."""
    ours = load({}, {}, file=str(FOLDER / "chat-gevent.toml")).settings
    image = load({}, {}).settings
    assert seconds(r"^TimeoutStopSec=(\d+)()$", "chat-gevent.service") > (
        ours.drain_delay + ours.drain_timeout + ours.linger_timeout
    )
    assert seconds(r"--stop-timeout (\d+)()", "Containerfile") > (
        image.drain_delay + image.drain_timeout + image.linger_timeout
    )
    noticed = seconds(r" inter (\d+)()s ", "haproxy.cfg") * seconds(r" fall (\d+)() ", "haproxy.cfg")
    assert noticed < ours.drain_delay
    for pattern, name in (
        (r"^    timeout client (\d+)(h)$", "haproxy.cfg"),
        (r"^    timeout server (\d+)(h)$", "haproxy.cfg"),
        (r"^        proxy_timeout (\d+)(h);$", "nginx-stream.conf"),
    ):
        assert seconds(pattern, name) > ours.idle_timeout


def manifests() -> dict[str, Any]:
    """What the Kubernetes manifest describes, by kind."""
    return {each["kind"]: each for each in yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())}


@pytest.mark.parametrize("version", ["1.28", "1.37"])
def test_kubernetes_takes_its_file(version: str) -> None:
    """Each document fits Kubernetes's own schema, with no key that it does not know."""
    said = checked(
        *(beside_python("kubernetes-validate"), "--strict", "-k", version),
        FOLDER / "kubernetes.yaml",
    )
    assert said.count(" passed for resource ") == len(manifests()) == 3


def test_the_manifest_fits_the_server(operate: Callable[..., ServerProcess]) -> None:
    """Its arguments are options, its probes are pages that answer 200, its port is the image's, and the time
    to stop is longer than what comes before the end."""
    found = manifests()
    pod = found["Deployment"]["spec"]["template"]["spec"]
    [server] = pod["containers"]
    assert server["args"][0] == "serve"
    settings = load(
        dict(zip(map(option, server["args"][1::2]), server["args"][2::2], strict=True)), {}
    ).settings
    delay = int(server["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > delay + settings.drain_timeout + settings.linger_timeout
    assert pod["enableServiceLinks"] is False
    ports = {each["name"]: each["containerPort"] for each in server["ports"]}
    environment = container()["ENV"]
    assert f"CHAT_GEVENT_LISTEN=tcp://*:{ports['chat']}" in environment
    assert f"CHAT_GEVENT_ADMIN=0.0.0.0:{ports['admin']}" in environment
    assert found["Service"]["spec"]["ports"][0]["targetPort"] == "chat"
    readiness = server["readinessProbe"]
    assert readiness["periodSeconds"] * readiness["failureThreshold"] < delay  # known before it stops
    running = operate("--port", "0", "--admin", "127.0.0.1:0")
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert server[probe]["httpGet"]["port"] == "admin"
        assert running.ask(server[probe]["httpGet"]["path"])[0] == 200


def option(word: str) -> str:
    """The setting of an option."""
    return word.removeprefix("--").replace("-", "_")
