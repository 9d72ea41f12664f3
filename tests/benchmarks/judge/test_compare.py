"""Comparing reports: verdicts, refusals with the difference named, exit statuses, and how they are shown."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cli import main
from benchmarks.judge import noise
from benchmarks.judge.compare import Result, compare
from benchmarks.judge.statistics import Verdict
from benchmarks.reports.figures import by_block, figures, merged
from benchmarks.reports.histograms import sure_quantile
from benchmarks.reports.report import Fired, HistogramKind, Report, Server
from benchmarks.show import history
from benchmarks.show.html import report_page
from benchmarks.show.wording import headline, markdown, number, print_result, quantity
from tests.benchmarks.made_reports import CPU, encoded, make

MadeFile = Callable[..., str]


@pytest.fixture
def saved(tmp_path: Path) -> MadeFile:
    """Save a made-up report as ``name.json``; returns its path."""

    def save(name: str, costs: dict[str, float], **options: Any) -> str:
        path = tmp_path / f"{name}.json"
        make(costs, **options).save(path)
        return str(path)

    return save


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of ``python -m benchmarks``, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(list(arguments))
        except SystemExit as stopped:  # argparse
            status = int(stopped.code or 0)
    return status, out.getvalue(), err.getvalue()


def verdict_of(result: Result, metric: str = "cpu") -> Verdict | None:
    """The verdict on one metric of the only candidate."""
    (found,) = [c.verdict for c in result.comparisons if c.name == metric]
    return found


@pytest.mark.parametrize(
    ("cost", "verdict", "status"),
    [(10.8, Verdict.SLOWER, 1), (9.2, Verdict.FASTER, 0), (10.0, Verdict.SAME, 0)],
)
def test_servers_of_one_run(cost: float, verdict: Verdict, status: int) -> None:
    """8% either way and no difference are told in spite of a drift of 5%; only slower is a regression."""
    result = compare([make({"base": 10, "new": cost})], ["r"])
    assert verdict_of(result) is verdict
    assert verdict_of(result, "rate") is verdict
    assert verdict_of(result, "user") is None
    assert result.status == status
    assert result.paired


@pytest.mark.parametrize(
    ("cost", "verdict", "status"), [(15, Verdict.SLOWER, 1), (6, Verdict.FASTER, 0), (10, Verdict.SAME, 0)]
)
def test_two_runs(cost: float, verdict: Verdict, status: int) -> None:
    """Two reports of one server are compared by their medians, unpaired."""
    reports = [
        make({"s": 10}, drift=0.005, seed=1),
        make({"s": cost}, drift=0.005, seed=2),
    ]
    result = compare(reports, ["before", "after"])
    assert verdict_of(result) is verdict
    assert result.status == status
    assert {c.estimate.method for c in result.comparisons} == {"mann-whitney"}
    assert (result.comparisons[0].baseline, result.candidates) == ("before", ["after"])


def test_noise_makes_it_unclear() -> None:
    """6% between servers whose ratio scatters by 14% is unclear, with a reason, and 3 only under --strict."""
    report = make({"base": 10, "new": 10.6}, noise=0.1, blocks=6)
    result = compare([report], ["r"])
    assert verdict_of(result) is Verdict.UNCLEAR
    assert result.comparisons[0].reason
    assert result.status == 0
    assert compare([report], ["r"], strict=True).status == 3


def test_drift_between_runs_is_no_difference() -> None:
    """A run 4% slower than another is not called slower where blocks of one run differ by as much."""
    result = compare([make({"s": 10}, seed=3), make({"s": 10.4}, seed=4)], ["a", "b"])
    assert verdict_of(result) is Verdict.UNCLEAR


def test_throughput_counts_only_where_the_servers_were_saturated() -> None:
    """Confirmations a second get no verdict between servers that waited for their clients."""
    result = compare([make({"base": 10, "new": 15}, saturated=False)], ["r"])
    assert verdict_of(result, "rate") is None
    assert verdict_of(result) is Verdict.SLOWER


def test_failed_requests_are_never_faster() -> None:
    """A server that is 30% faster but drops one request in a hundred is unclear, with the reason."""
    report = make({"base": 10, "new": 7})
    for trial in report.trials_of("new"):
        trial.errors = {"reset": trial.messages // 100}
    found = compare([report], ["r"]).comparisons[0]
    assert found.verdict is Verdict.UNCLEAR
    assert "requests to new failed, 0 of" in found.reason


def test_a_small_difference_counts_if_the_margin_says_so() -> None:
    """4% is slower by the default margin and no regression by one of 10%."""
    report = make({"base": 10, "new": 10.4}, noise=0.004)
    assert verdict_of(compare([report], ["r"])) is Verdict.SLOWER
    assert verdict_of(compare([report], ["r"], margin=0.1)) is Verdict.SAME


def test_the_noise_floor_comes_from_the_same_server_measured_twice() -> None:
    """Where equal servers differ by 15% from block to block, 5% between others is below the floor."""
    report = make({"base": 10, "again": 10, "new": 10.5}, noise=0.001)
    report.servers[1] = Server(name="again", version="1", command=["serve", "base"], source_hash="base")
    for trial in report.trials_of("again"):
        trial.values["cpu"] *= 1.15 if trial.block % 2 else 1 / 1.15
    figure = next(f for f in figures(report) if f.name == "cpu")
    assert noise.within(report, figure, "base", "new") > 0.08
    found = next(c for c in compare([report], ["r"]).comparisons if c.candidate == "new" and c.name == "cpu")
    assert found.verdict is Verdict.UNCLEAR
    assert "noise floor" in found.reason


def test_several_trials_in_a_block_count_once() -> None:
    """A block measured ABBA gives one ratio, and its repeats tell the noise floor."""
    report = make({"base": 10, "new": 12}, blocks=6)
    for trial in list(report.trials):
        copy = replace(trial, order=trial.order + 100, values={n: v * 1.01 for n, v in trial.values.items()})
        report.trials.append(copy)
    comparison = compare([report], ["r"]).comparisons[0]
    assert comparison.estimate.n == 6
    assert 0 < comparison.floor < 0.02
    assert len(by_block(figures(report)[0].samples["base"])) == 6


def test_a_quick_run_tells_a_factor() -> None:
    """With nine servers and 3 blocks a ratio of 3.6 is slower, though it scatters by a tenth."""
    costs = {"base": 10.0, **{f"s{number}": 10.0 for number in range(7)}, "slow": 36.0}
    result = compare([make(costs, blocks=3, noise=0.08)], ["r"])
    (found,) = [c for c in result.comparisons if c.candidate == "slow" and c.name == "cpu"]
    assert found.verdict is Verdict.SLOWER
    assert found.estimate.method == "pooled-t"


def test_the_reason_is_true() -> None:
    """An interval without 1 is not said to hold it: p is named, and how many blocks a verdict takes."""
    for seed in range(12):
        costs = {"base": 10.0, **{f"s{number}": 10.0 + number for number in range(8)}}
        for c in compare([make(costs, blocks=3, noise=0.15, seed=seed)], ["r"]).comparisons:
            if c.verdict is not Verdict.UNCLEAR or c.p is None:
                continue
            holds = c.estimate.low <= 1 <= c.estimate.high
            assert c.reason.startswith("the interval holds both 1") == (holds and c.p >= 0.05)
            assert c.reason.startswith("p is ") == (not holds and c.p >= 0.05)
            if c.p >= 0.05:
                assert "a verdict takes " in c.reason
                assert c.reason.endswith(" blocks, not 3")


def test_missing_blocks_are_left_out() -> None:
    """Only blocks that both servers were measured in count, and two of them are no verdict."""
    report = make({"base": 10, "new": 20}, blocks=5)
    report.trials = [t for t in report.trials if t.server == "base" or t.block in (1, 3, 4)]
    assert compare([report], ["r"]).comparisons[0].estimate.n == 3
    report.trials = [t for t in report.trials if t.server == "base" or t.block != 1]
    found = compare([report], ["r"]).comparisons[0]
    assert (found.verdict, found.reason) == (Verdict.UNCLEAR, "2 blocks to go by; a verdict takes 3")


def test_correction_is_over_one_metric() -> None:
    """The p of a comparison among 13 servers is larger than the same one's alone."""
    costs = {"base": 10.0, **{f"s{number}": 10.0 for number in range(12)}}
    many = compare([make(costs)], ["r"]).comparisons
    alone = [c.p for c in many if c.p is not None and c.p < 1]
    assert all(c.p is not None and c.p >= c.estimate.p for c in many if c.verdict)
    assert len(alone) < len([c for c in many if c.verdict])


KERNEL = {"environment": {**make({"s": 1}, blocks=1).environment, "kernel": "Linux 5.10"}}
PINNING = {"environment": {**make({"s": 1}, blocks=1).environment, "pinning": {"server": [1]}}}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (KERNEL, "kernel differs (Linux 6.1 and Linux 5.10)"),
        (PINNING, "server differs (0 and 1)"),
        ({"parameters": {"connections": 400, "size": 32}}, "parameter connections differs (200 and 400)"),
        ({"parameters": {"connections": 200}}, "parameter size differs (32 and absent)"),
        ({"scenario": "paced"}, "scenario differs (confirm and paced)"),
        ({"kind": "locust"}, "kind differs (benchmark and locust)"),
    ],
)
def test_other_conditions_are_refused(saved: MadeFile, changes: dict[str, Any], named: str) -> None:
    """Reports from differing conditions get exit status 3 and the difference by name, unless forced.

    Forced or not, a Locust run is one sample, which nothing is said of.
    """
    one, two = saved("one", {"s": 10}), saved("two", {"s": 20}, seed=2, **changes)
    status, out, _ = run("compare", one, two)
    assert status == 3
    assert named in " ".join(out.split())
    assert "slower" not in out
    status, out, _ = run("compare", one, two, "--force")
    assert status == (0 if "kind" in changes else 1)
    assert named in " ".join(out.split())
    assert "prove nothing" in " ".join(out.split())


def test_reports_of_unlike_kinds_are_told_apart_by_little() -> None:
    """Kind and scenario are named, not all else in which a run of Locust differs too."""
    locust = make(
        {"s": 10}, seed=2, kind="locust", scenario="locust", parameters={"users": 5}, environment={}
    )
    result = compare([make({"s": 10}), locust], ["a", "b"])
    assert result.refused == [
        "kind differs (benchmark and locust)", "scenario differs (confirm and locust)"
    ]  # fmt: skip
    assert result.differences == []


def test_what_is_absent_is_not_none() -> None:
    """A fact that one report has as null and the other lacks differs, and the line says how."""
    two = make({"s": 10}, seed=2)
    two.environment["governor"] = None
    assert compare([make({"s": 10}), two], ["a", "b"]).differences == ["governor differs (absent and none)"]


def test_other_versions_are_compared_and_named(saved: MadeFile) -> None:
    """Another gevent is what one may want to compare: no refusal, but the difference is shown."""
    environment = {**make({"s": 1}, blocks=1).environment, "packages": {"gevent": "27.1"}}
    status, out, _ = run("compare", saved("one", {"s": 10}), saved("two", {"s": 10}, environment=environment))
    assert status == 0
    assert "packages.gevent differs (26.9.0 and 27.1)" in out


def test_how_much_was_measured_is_no_condition(saved: MadeFile) -> None:
    """A run with more blocks can be compared with one with fewer."""
    assert (
        run("compare", saved("one", {"s": 10}, drift=0), saved("two", {"s": 10}, blocks=8, drift=0))[0] == 0
    )


def test_mean_only_over_equal_sets() -> None:
    """Reports with the same servers get a geometric mean; with others they do not, and a note says why."""
    base = make({"a": 10, "b": 20}, drift=0.005)
    result = compare([base, make({"a": 12, "b": 24}, drift=0.005, seed=2)], ["x", "y"])
    mean = next(m for m in result.means if m.title == CPU.title)
    assert mean.ratio == pytest.approx(1.2, rel=0.02)
    assert mean.servers == 2
    result = compare([base, make({"a": 12, "b": 24, "c": 5}, drift=0.005, seed=2)], ["x", "y"])
    assert result.means == []
    assert any("only one of x and y has c" in note for note in result.notes)


def test_three_reports(saved: MadeFile) -> None:
    """Each further report is compared with the first."""
    paths = [saved(name, {"s": cost}, drift=0.004, seed=len(name)) for name, cost in
             [("a", 10), ("bb", 10), ("ccc", 14)]]  # fmt: skip
    status, out, _ = run("compare", *paths)
    assert status == 1
    assert "1 is slower (s, ccc)" in " ".join(out.split()) or "1 is slower (ccc)" in " ".join(out.split())


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["compare", "{one}"], "the report has one server"),
        (["compare", "{two}", "--baseline", "x"], "no server 'x' in the report; it has a, b"),
        (["compare", "{one}", "{other}"], "no server in common"),
        (["compare", "{one}", "{two}", "--baseline", "a"], "give one file"),
        (["compare", "{empty}"], "the report has no trials"),
        (["compare", "{cut}", "{one}"], "the file is cut short"),
        (["compare", "{one}", "nowhere.json"], "nowhere.json: No such file"),
        (["compare", "{two}", "--html", "/nowhere/x.html"], "/nowhere/x.html: No such file"),
        (["compare", "{two}", "--margin", "lots"], "'lots' is no percentage"),
        (["compare", "{two}", "--margin", "0"], "not between 0% and 100%"),
        (["compare"], "the following arguments are required"),
        (["show", "{cut}"], "the file is cut short"),
        (["history", "nowhere"], "nowhere: not a directory"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    saved: MadeFile, tmp_path: Path, arguments: list[str], line: str
) -> None:
    """Usage and files that cannot be read: exit status 2, the reason on standard error, no traceback."""
    files = {
        "one": saved("one", {"s": 10}, blocks=3),
        "two": saved("two", {"a": 10, "b": 10}, blocks=3),
        "other": saved("other", {"x": 10, "y": 9}, blocks=3),
        "empty": saved("empty", {"a": 10, "b": 10}, blocks=0),
        "cut": str(tmp_path / "cut.json"),
    }
    Path(files["cut"]).write_text(Path(files["two"]).read_text()[:500])
    if arguments[1:] == ["{one}", "{other}"]:  # several servers, none shared
        files["one"] = saved("several", {"s": 10, "t": 11}, blocks=3)
    status, _, err = run(*(part.format(**files) for part in arguments))
    assert status == 2
    assert line in err
    assert "Traceback" not in err
    assert len([text for text in err.splitlines() if not text.startswith(("usage", " "))]) == 1


def test_a_damaged_histogram_is_one_line(saved: MadeFile, tmp_path: Path) -> None:
    """A histogram cut in half is named with its trial instead of a traceback from the library."""
    report = make({"a": 10, "b": 11}, blocks=3, rich=True)
    report.trials[2].histograms["latency"] = report.trials[2].histograms["latency"][:40]
    report.save(tmp_path / "r.json")
    status, _, err = run("compare", str(tmp_path / "r.json"))
    assert status == 2
    assert "trial 2: a histogram is damaged" in err


INTERRUPTED = Fired(check="interrupted", message="m")
FAILED = Fired(check="trial-failed", message="m", server="a", block=0)


@pytest.mark.parametrize(
    ("fired", "state"),
    [
        ([INTERRUPTED], "incomplete: its run was interrupted"),
        ([FAILED], "incomplete: 1 trial failed"),
        ([FAILED, FAILED, INTERRUPTED], "incomplete: 2 trials failed and its run was interrupted"),
        ([], "incomplete: its run did not come to its end"),
    ],
)
def test_why_a_run_is_incomplete(saved: MadeFile, fired: list[Fired], state: str) -> None:
    """Whoever shows a report tells an interrupted run from failed trials by the checks that fired."""
    report = make({"a": 10, "b": 10}, blocks=3, complete=False, warnings=fired)
    assert f"r is {state}." in compare([report], ["r"]).notes
    assert state in report_page(report)
    path = saved("r", {"a": 10, "b": 10}, blocks=3, complete=False, warnings=fired)
    assert state in " ".join(run("show", path)[1].split())
    assert f"({state})" in history.collect(Path(path).parent).entries[0].scenario


def test_changed_files_are_said() -> None:
    """A reader learns that the files measured were not those of the revision."""
    report = make({"a": 10, "b": 10})
    report.revision = replace(report.revision, dirty=True)
    assert any("differ from its git revision" in note for note in compare([report], ["r"]).notes)


def test_percentiles_come_from_merged_histograms() -> None:
    """The figure shown is the quantile of all trials' values together, not a mean of their percentiles."""
    report = make({"a": 10, "b": 10}, blocks=2, rich=True)
    slow, fast = [50_000] * 100 + [100] * 900, [100] * 3000
    for trial in report.trials_of("a"):
        trial.histograms["latency"] = encoded(slow if trial.block else fast)
    shown = next(f for f in figures(report) if f.name == "latency_p99").shown["a"]
    assert shown == pytest.approx(50_000, rel=0.01)
    histogram = merged(report, "a", "latency")
    assert histogram is not None
    assert histogram.get_total_count() == 4000


def test_a_quantile_that_rests_on_too_little_is_hidden() -> None:
    """p99 needs 1,000 values, p99.9 needs 10,000: ten above the quantile."""
    from hdrh.histogram import HdrHistogram

    histogram = HdrHistogram(1, 1_000_000, 3)
    histogram.record_value(5, 999)
    assert sure_quantile(histogram, 0.99) is None
    histogram.record_value(5, 1)
    assert sure_quantile(histogram, 0.99) == 5
    assert sure_quantile(histogram, 0.999) is None


@pytest.mark.parametrize("open_schedule", [True, False])
def test_percentiles_judge_only_from_an_open_schedule(open_schedule: bool) -> None:
    """Latency of a closed loop hides the time that clients waited to send, so it gets no verdict."""
    report = make({"a": 10, "b": 15}, blocks=6, rich=True)
    report.histograms["latency"] = HistogramKind(title="latency", open_schedule=open_schedule)
    result = compare([report], ["r"])
    assert (verdict_of(result, "latency_p50") is Verdict.SLOWER) is open_schedule
    assert verdict_of(result, "latency_p90") is None


def _screen(result: Result, width: int) -> list[str]:
    from rich.console import Console

    out = io.StringIO()
    print_result(result, Console(file=out, width=width, color_system=None))
    return out.getvalue().splitlines()


@pytest.mark.parametrize(
    "costs", [{"base": 10.0, "new": 11.0}, {"base": 10.0, "chat_gevent_never": 11.0, "c": 9.0}]
)
def test_the_terminal_needs_80_columns(costs: dict[str, float]) -> None:
    """Every verdict and interval is whole on a terminal of 80 columns."""
    result = compare([make(costs, rich=True)], ["r"])
    lines = _screen(result, 80)
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    shown = [word for line in lines for word in line.split() if word in {"slower", "faster"}]
    assert len(shown) >= len([c for c in result.comparisons if c.verdict])


def test_the_headline_says_who_and_how_much() -> None:
    """One sentence: who is slower than whom, by how much, and between which bounds."""
    text = headline(compare([make({"base": 10, "new": 11.0})], ["r"]))
    assert text.startswith("new is slower than base: server CPU per confirmation is ")
    assert "% more (95% interval " in text
    assert headline(compare([make({"base": 10, "new": 10.0}, noise=0.003)], ["r"])).startswith(
        "new and base are the same within 3.0%"
    )
    several = headline(compare([make({"base": 10, "x": 12, "y": 8, "z": 8.1})], ["r"]))
    assert several == (
        "By server CPU per confirmation, of 3 compared with base: 2 are faster (y, z), 1 is slower (x)."
    )


def test_markdown_is_a_table(saved: MadeFile, tmp_path: Path) -> None:
    """``--markdown`` writes verdict and table; all rows have as many cells, and a pipe is escaped."""
    path = saved("r", {"base": 10, "odd|name": 12}, rich=True)
    status, _, _ = run("compare", path, "--markdown", str(tmp_path / "r.md"))
    assert status == 1
    written = (tmp_path / "r.md").read_text()
    assert written.startswith("**odd|name is slower than base")
    rows = [line.replace("\\|", "") for line in written.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {7}
    assert markdown(compare([Report.load(path)], ["r"])) == written
    assert run("compare", path, "--markdown", "-")[1] == written


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (12.345, "µs", "12.3 µs"),
        (1234.5, "µs", "1.23 ms"),
        (0.1234, "µs", "0.123 µs"),
        (126503.2, "1/s", "126,503/s"),
        (2.5e6, "µs", "2.50 s"),
        (8.87, "KiB", "8.87 KiB"),
        (2048, "KiB", "2.00 MiB"),
        (7, "", "7.00"),
        (0, "µs", "0 µs"),
    ],
)
def test_quantities(value: float, unit: str, said: str) -> None:
    """Three digits, in the largest unit that leaves at least 1."""
    assert quantity(value, unit) == said


def test_numbers_keep_no_exponent() -> None:
    """Large and small numbers are written out."""
    assert [number(v) for v in (1234567, 0.00012, 99.95)] == ["1,234,567", "0.000120", "100.0"]


def test_the_command_itself(saved: MadeFile) -> None:
    """``python -m benchmarks compare`` exits with the status and prints the verdict first."""
    path = saved("r", {"base": 10, "new": 12})
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "benchmarks", "compare", path],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("new is slower than base")
