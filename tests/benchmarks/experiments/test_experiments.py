"""The command ``experiment``: what there is, and that each says what it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cli import main
from benchmarks.experiments import EXPERIMENTS, ExperimentFailed, load


def test_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """``experiment --help`` names each, with what it is for."""
    with pytest.raises(SystemExit) as ended:
        main(["experiment", "--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, purpose in EXPERIMENTS.items():
        assert f"{name} {purpose}" in shown


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_each_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """``experiment NAME --help`` has the text of the module, and its options."""
    with pytest.raises(SystemExit) as ended:
        main(["experiment", name, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert f"python -m benchmarks experiment {name}" in shown
    assert len(shown.splitlines()) > 10


@pytest.mark.parametrize("name", ["verdict_quality", "change_points"])
def test_without_the_runs_of_the_sources(name: str, tmp_path: Path) -> None:
    """The installed package does not have them: what is missing is said, and how to make it."""
    module = load(name.replace("_", "-"))
    look = {"verdict_quality": "verdict_table", "change_points": "own_noise"}[name]
    with pytest.raises(ExperimentFailed, match="verdict-quality measure --directory"):
        getattr(module, look)(tmp_path)


def test_an_unknown_one_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2, and what there is."""
    with pytest.raises(SystemExit) as ended:
        main(["experiment", "nothing"])
    assert ended.value.code == 2
    assert "blocking" in capsys.readouterr().err
