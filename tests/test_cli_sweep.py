"""``sbilib sweep``: whole, in parts, interrupted, and what it refuses."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from sbilib.cli import app
from sbilib.cli_sweep import sweep_of_study
from sbilib.runs import find_root
from sbilib.studies import Sweep, sweep_files, sweep_run

from .studies.sweep_examples import FakeFit, fake_evaluate
from .tiny_study import edit

NOTEBOOK = """\
---
jupytext:
  text_representation: {extension: .md, format_name: myst}
kernelspec: {display_name: Python 3, language: python, name: python3}
---

# A small sweep

```{code-cell} ipython3
:tags: [parameters]

seed: int = 1  # random seed [1] (cost: none)
n_models: int = 2  # models of each kind [1] (cost: linear)
learning_rates: list[float] = [0.001, 0.01]  # learning rates [1] (cost: linear)
n_steps: int = 3  # steps [1] (cost: linear)
test_repeats: int = 1  # test sets of each point [1] (cost: linear)
n_test_events: int = 20  # events of a test set [1] (cost: linear)
pairs_per_chunk: int = 2  # pairs trained together [1] (cost: memory)
```
"""


@pytest.fixture
def fit(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeFit:
    """Models that cost nothing, and a repository with the sweep ``mini`` beside the study ``coin``."""
    fake = FakeFit()
    monkeypatch.setenv("SBILIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sweep_run, "_fit_pairs", lambda: fake)
    monkeypatch.setattr(sweep_run, "_evaluate_pair", lambda: fake_evaluate)
    (repository / "notebooks" / "mini.md").write_text(NOTEBOOK, encoding="utf-8")
    sets = "smoke: {n_models: 1}\nstandard: {}\nfull: {n_models: 30}\n"
    (repository / "notebooks" / "params" / "mini.yml").write_text(sets, encoding="utf-8")
    return fake


def sweep(root: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--root", str(root), "sweep", *arguments])


def table_of(root: Path, set_name: str = "standard") -> pd.DataFrame:
    return pd.read_parquet(root / "results" / "mini" / set_name / "table.parquet")


def test_list_shows_the_sweeps_and_no_other_study(repository: Path, fit: FakeFit) -> None:
    output = sweep(repository, "list").output
    assert "mini" in output
    assert "coin" not in output
    row = next(line for line in output.splitlines() if "full" in line)
    assert " 240 " in row, "30 models, 2 rates, 2 methods, 2 cases"


def test_run_makes_the_table_and_says_when_it_is_there(repository: Path, fit: FakeFit) -> None:
    result = sweep(repository, "run", "mini")
    assert result.exit_code == 0, result.output
    assert len(table_of(repository)) == (16 + 4) * 9
    again = sweep(repository, "run", "mini")
    assert again.exit_code == 0
    assert "mini is finished" in again.output
    assert sum(fit.stacks) == 16
    assert "results: finished" in sweep(repository, "status", "mini").output
    assert sweep(repository, "run", "mini", "--fresh").exit_code == 0
    assert sum(fit.stacks) == 32


def test_parts_and_gather_make_the_same_table(repository: Path, fit: FakeFit, tmp_path: Path) -> None:
    assert sweep(repository, "run", "mini", "--out", str(tmp_path / "whole")).exit_code == 0
    assert sweep(repository, "clear", "mini").exit_code == 0
    for part in ("2/3", "1/3"):
        assert sweep(repository, "run", "mini", "--chunk", part).exit_code == 0
    early = sweep(repository, "gather", "mini")
    assert early.exit_code == 1
    assert early.stderr.count("\n") == 1
    assert "3 of 10 chunks of mini are not finished: 3 (classifier, large: missing)" in early.stderr
    assert "not gathered" in sweep(repository, "status", "mini").output
    assert sweep(repository, "run", "mini", "--chunk", "3/3").exit_code == 0
    assert sweep(repository, "gather", "mini").exit_code == 0
    whole, parts = tmp_path / "whole", repository / "results" / "mini" / "standard"
    assert (whole / "table.parquet").read_bytes() == (parts / "table.parquet").read_bytes()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_run_goes_on(
    repository: Path, fit: FakeFit, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    calls = []

    def evaluate(*args: Any, **options: Any) -> pd.DataFrame:
        calls.append(1)
        if len(calls) == 6:
            os.kill(os.getpid(), number)
        return fake_evaluate(*args, **options)

    # A test that runs in the background inherits an ignored SIGINT; a user at a terminal does not.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as patch:
        patch.setattr(sweep_run, "_evaluate_pair", lambda: evaluate)
        stopped = sweep(repository, "run", "mini")
    signal.signal(signal.SIGINT, inherited)
    assert stopped.exit_code == code
    assert "sbilib: interrupted: finished chunks and checkpoints are kept" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert sum(fit.stacks) == 6
    assert sweep(repository, "run", "mini").exit_code == 0
    # The chunk that was interrupted after its training is trained again by the fake without a single step.
    assert fit.steps == 3 * 8
    assert len(table_of(repository)) == (16 + 4) * 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "mine"], "unknown study 'mine'; did you mean 'mini'"),
        (["run", "coin"], "study 'coin' is not a sweep; the sweeps are: mini"),
        (["run", "mini", "--set", "big"], "unknown parameter set 'big'"),
        (["run", "mini", "--chunk", "2"], "--chunk 2: expected I/N, for example --chunk 2/16"),
        (["run", "mini", "--chunk", "3/2"], "part 3 of 2 does not exist"),
        (["run", "mini", "--chunk", "0/2"], "part must be an integer of at least 1"),
        (["run", "mini", "--chunk", "1/2", "--fresh"], "say once: sbilib sweep clear mini"),
    ],
)
def test_wrong_request_is_one_line_and_exit_code_2(
    repository: Path, fit: FakeFit, arguments: list[str], message: str
) -> None:
    result = sweep(repository, *arguments)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert not (repository / "results").exists()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("learning_rates: []", "learning rates must not be empty"),
        ("learning_rates: [0.1, 0.1]", "learning rates must differ, but 0.1 comes more than once"),
        ("n_models: 0", "n_models must be an integer of at least 1"),
    ],
)
def test_bad_parameters_are_one_line(repository: Path, fit: FakeFit, bad: str, message: str) -> None:
    edit(repository / "notebooks" / "params" / "mini.yml", "n_models: 1", bad)
    result = sweep(repository, "run", "mini", "--set", "smoke")
    assert result.exit_code == 2
    assert message in result.stderr


def test_results_of_another_description_or_code_are_refused(
    repository: Path, fit: FakeFit, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sweep(repository, "run", "mini", "--set", "smoke").exit_code == 0
    before = table_of(repository, "smoke")
    edit(repository / "notebooks" / "params" / "mini.yml", "n_models: 1", "n_models: 1, n_steps: 5")
    for command in ("run", "gather"):
        refused = sweep(repository, command, "mini", "--set", "smoke")
        assert refused.exit_code == 1
        assert "another sweep or version of the code: n_steps is 3 there and 5 here" in refused.stderr
    pd.testing.assert_frame_equal(table_of(repository, "smoke"), before)
    assert sweep(repository, "run", "mini", "--set", "smoke", "--fresh").exit_code == 0
    changed = {**sweep_files.code_of_sweeps(), "training": "0" * 64}
    for module in (sweep_files, sweep_run):
        monkeypatch.setattr(module, "code_of_sweeps", lambda: changed)
    refused = sweep(repository, "run", "mini", "--set", "smoke")
    assert "code in sbilib/training changed" in refused.stderr
    assert sweep(repository, "accept", "mini", "--set", "smoke").output.strip() == "accepted"
    assert "mini is finished" in sweep(repository, "run", "mini", "--set", "smoke").output


def test_folder_that_cannot_be_written_is_said_before_anything_is_trained(
    repository: Path, fit: FakeFit, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    result = sweep(repository, "run", "mini", "--out", str(tmp_path / "file" / "below"))
    assert result.exit_code != 0
    assert "cannot write into" in result.stderr
    assert fit.stacks == []


def test_the_full_set_of_the_study_is_the_published_sweep() -> None:
    root = find_root(Path(__file__).parent)
    full = sweep_of_study("learning-rate-sweep", "full", root)
    assert {**full.facts, "pairs_per_chunk": 0} == {**Sweep.sluijter().facts, "pairs_per_chunk": 0}
