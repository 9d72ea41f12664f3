"""``python -m benchmarks``: what it lists, runs and refuses, with one line and a status for each mistake."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cli import main
from benchmarks.measure.compiler import compiled
from benchmarks.measure.scenarios import SCENARIOS
from benchmarks.measure.servers import SERVERS
from benchmarks.reports.report import Report
from tests.benchmarks.made_reports import make

BRIEF = ["--connections", "5", "--seconds", "0.1", "--warmup", "0", "--blocks", "1"]


def status_of(*arguments: str) -> int:
    """The exit status of a command that argparse or ``main`` ends."""
    try:
        return main(list(arguments))
    except SystemExit as end:
        return int(end.code or 0)


def test_list_names_all(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every scenario with its question and every server, and why one cannot run."""
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setenv("PATH", "/nowhere")
    assert status_of("list") == 0
    out = capsys.readouterr().out
    for scenario in SCENARIOS.values():
        assert scenario.name in out
        assert scenario.question in out
    for name in SERVERS:
        assert name in out
    assert "go is not installed" in out
    assert "no C compiler" in out


def test_run_writes_a_report_and_shows_medians(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 0, the report's file, a row for each server, and how to compare them."""
    monkeypatch.setenv("COLUMNS", "200")
    output = tmp_path / "r.json"
    arguments = ["--servers", "asyncio_protocol,threads", *BRIEF, "--slices", "1", "--output", str(output)]
    assert status_of("run", "confirm", *arguments) == 0
    shown = capsys.readouterr()
    assert "asyncio_protocol" in shown.out
    assert "threads" in shown.out
    assert f"compare the servers: python -m benchmarks compare {output}" in shown.out
    assert Report.load(output).parameters["connections"] == 5
    assert shown.err.count("block 1") == 2


def test_one_server_twice(tmp_path: Path) -> None:
    """A server named twice is measured twice, as two with equal command and source: its own noise."""
    output = tmp_path / "r.json"
    arguments = ["--servers", "asyncio_protocol,asyncio_protocol", *BRIEF, "--output", str(output)]
    assert status_of("run", "confirm", *arguments) == 0
    first, second = Report.load(output).servers
    assert (first.name, second.name) == ("asyncio_protocol", "asyncio_protocol#2")
    assert (first.command, first.source_hash) == (second.command, second.source_hash)


def test_options_of_a_server(tmp_path: Path) -> None:
    """Options after a server's name reach its command and its name in the report."""
    output = tmp_path / "r.json"
    arguments = ["--servers", "asyncio_protocol --busy-ns 1000", *BRIEF, "--output", str(output)]
    assert status_of("run", "confirm", *arguments) == 0
    (server,) = Report.load(output).servers
    assert server.name == "asyncio_protocol --busy-ns 1000"
    assert server.command[-2:] == ["--busy-ns", "1000"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run", "confirm", "--servers", "nosuch"], "there is no server 'nosuch'; there are chat_gevent, "),
        (["run", "confirm", "--servers", ","], "no server is named"),
        (["run", "confirm", "--servers", "go+5ns"], "go takes no busy loop"),
        (
            ["run", "confirm", "--servers", "c_epoll+slow"],
            "'c_epoll+slow': after + comes a time such as 262ns",
        ),
        (["run", "confirm", "--servers", "go 'x"], '"go \'x": No closing quotation'),
        (["run", "pipelined", "--servers", "threads"], "threads cannot run pipelined: it has no framing"),
        (["run", "confirm", "--connections", "900000"], "a server may open "),
        (["run", "confirm", "--connections", "0"], "0 is not between 1 and 1e+06"),
        (["run", "confirm", "--size", "many"], "'many' is no number"),
        (["run", "confirm", "--idle", "5"], "unrecognized arguments: --idle 5"),
        (["run", "confirm", "--quick", "--full"], "not allowed with argument --quick"),
        (["run", "confirm", "--server-cores", "4096"], "this process may use cores"),
        (["run", "nosuch"], "invalid choice: 'nosuch'"),
        (["nosuch"], "invalid choice: 'nosuch'"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_usage_errors(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each mistake: its own words, status 2, no traceback, and nothing is run."""
    assert status_of(*arguments) == 2
    err = capsys.readouterr().err
    assert complaint in err.splitlines()[-1]
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("output", "why"), [("missing/r.json", "No such file or directory"), ("", "Is a directory")]
)
def test_unwritable_output(output: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A report that cannot be written is noticed before anything is measured: its path, why, status 2."""
    arguments = ["--servers", "asyncio_protocol", *BRIEF, "--output", str(tmp_path / output)]
    assert status_of("run", "confirm", *arguments) == 2
    assert capsys.readouterr().err == f"benchmarks: {tmp_path / output}: {why}\n"


@pytest.mark.parametrize(
    "arguments", [["list"], ["compare", "a.json", "b.json"], ["demo"]], ids=lambda a: a[0]
)
def test_without_the_extra(arguments: list[str]) -> None:
    """In an interpreter without any package: which extra to install, in one line, status 2."""
    done = subprocess.run(
        [sys.executable, "-S", "-m", "benchmarks", *arguments],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.endswith(" is not installed: pip install 'chat-gevent[bench]'\n")
    assert done.stderr.count("\n") == 1


def test_help_of_a_scenario_has_its_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    """``run memory --help`` shows that scenario's own parameters with their defaults, and no others."""
    assert status_of("run", "memory", "--help") == 0
    out = capsys.readouterr().out
    assert "--plateaus" in out
    assert "(18000, quick 6000)" in out
    assert "--depth" not in out


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_help_of_a_scenario_fits_on_a_screen(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    """All options with their defaults and an example, in 40 lines of 80 columns."""
    assert status_of("run", scenario, "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    assert f"python -m benchmarks run {scenario} --servers" in lines[-2]


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["run", "confirm", "--conections", "5"], "did you mean --connections?"),
        (["compare", "a.json", "--margn", "5%"], "did you mean --margin?"),
        (["run", "confrm"], "did you mean confirm?"),
        (["histroy"], "did you mean history?"),
        (["run", "confirm", "--zzzz"], "unrecognized arguments: --zzzz"),
    ],
)
def test_a_misspelt_word_has_a_proposal(
    arguments: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The option or command nearest to it, in the line that says what is wrong; none where none is near."""
    assert status_of(*arguments) == 2
    assert capsys.readouterr().err.rstrip().endswith(meant)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """``--version`` says which version of the package this is."""
    assert status_of("--version") == 0
    assert capsys.readouterr().out.startswith("chat-gevent ")


@pytest.mark.parametrize("command", ["compare", "show", "history"])
def test_a_closed_pipe_is_no_verdict(command: str, tmp_path: Path) -> None:
    """Where nobody reads what is printed the status is 141, not the 1 of a slower server."""
    path = tmp_path / "r.json"
    make({"base": 10, "new": 12}, rich=True).save(path)
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks", command, str(tmp_path if command == "history" else path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2],
    ) as process:  # fmt: skip
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(50) == 141


def test_compiled_programs_are_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are under XDG_CACHE_HOME, and the package's own folder is left alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "nothing.c"
    source.write_text("int main(void) { return 0; }")
    target = compiled(source, lambda one, two: ["cp", str(one), str(two)])
    assert target.parent == tmp_path / "chat_gevent" / "build"
    assert [path.name for path in target.parent.iterdir()] == [target.name]


@pytest.mark.parametrize(
    "arguments",
    [
        ["experiment", "blocking", "--clients", "50"],
        [
            "run",
            "confirm",
            "--servers",
            "chat_gevent",
            "--connections",
            "5",
            "--blocks",
            "50",
            "--output",
            "r.json",
        ],
    ],
    ids=["experiment", "run"],
)
def test_an_interrupt_is_one_line(arguments: list[str], tmp_path: Path) -> None:
    """Ctrl-C ends a measurement with a line and a status, without a traceback."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1,
    )  # fmt: skip
    try:
        assert process.stdout
        process.stdout.readline()  # it measures
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=100)[0]
        assert "Traceback" not in rest
        assert process.returncode != 0
    finally:
        process.kill()
        process.communicate()


def test_an_experiments_output_is_checked_first(capsys: pytest.CaptureFixture[str]) -> None:
    """A file that can't be written is told before anything is measured."""
    assert status_of("experiment", "abuse", "--output", "/no/such/folder/a.json") == 2
    assert "/no/such/folder/a.json: No such file or directory" in capsys.readouterr().err
