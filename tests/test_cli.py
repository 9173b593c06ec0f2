"""The ``sbilib`` command: what it prints, where it writes, and how it fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from typer.testing import CliRunner, Result

from sbilib import __version__
from sbilib.cli import app

from .tiny_study import edit


def sbilib(root: Path, *arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, ["--root", str(root), *arguments])


def test_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).output.strip() == f"sbilib {__version__}"


def test_list_and_params_show_titles_values_and_meanings(repository: Path) -> None:
    assert "A biased coin" in sbilib(repository, "list").output
    shown = sbilib(repository, "params", "coin").output
    assert "how often the coin is thrown, in one experiment" in shown
    row = next(line for line in shown.splitlines() if "n_throws" in line)
    assert [text for text in ("100", "10", "1000") if f" {text} " not in row] == []


def test_run_writes_the_notebook_with_the_parameters_given(repository: Path, tmp_path: Path) -> None:
    arguments = ["--set", "smoke", "-p", "side=tails", "-p", "seed=3", "--out", str(tmp_path / "out")]
    result = sbilib(repository, "run", "coin", *arguments)
    assert result.exit_code == 0, result.output
    record = nbformat.read(tmp_path / "out" / "coin.ipynb", as_version=4).metadata.sbilib
    assert record.overrides == ["seed", "side"]
    assert (record.seed, record.parameters.side, record.parameters.n_throws) == (3, "tails", 10)
    assert os.listdir(tmp_path / "out") == ["coin.ipynb"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "con"], "unknown study 'con'; did you mean 'coin'?"),
        (["params", "con"], "unknown study 'con'"),
        (["run", "coin", "--set", "big"], "unknown parameter set 'big'. Valid: smoke, standard, full"),
        (["run", "coin", "-p", "sed=1"], "did you mean 'seed'"),
        (["run", "coin", "-p", "seed=abc"], "parameter 'seed' must be int (like 1), got 'abc'"),
        (["run", "coin", "-p", "seed"], "expected NAME=VALUE"),
        (["publish"], "name the studies to publish, or say --all or --missing"),
        (["publish", "--all", "--set", "big"], "unknown parameter set 'big'"),
        (["publish", "coin", "--set", "big"], "unknown parameter set 'big'"),
        (["publish", "coin", "--text-only"], "has no published run"),
    ],
)
def test_wrong_request_is_one_line_and_exit_code_2(
    repository: Path, arguments: list[str], message: str
) -> None:
    result = sbilib(repository, *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("sbilib: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert not (repository / "book").exists()


def test_no_repository_is_one_line(tmp_path: Path) -> None:
    result = sbilib(tmp_path, "list")
    assert result.exit_code == 2
    assert "no studies found at or above" in result.stderr


def test_status_says_what_is_stale_and_why(repository: Path, published: Path) -> None:
    assert "current" in sbilib(repository, "status", "--check").output
    edit(repository / "requirements.lock", "2.0", "2.1")
    result = sbilib(repository, "status")
    assert result.exit_code == 0
    assert "stale" in result.output
    assert "numpy 2.0 -> 2.1" in result.output
    assert sbilib(repository, "status", "--check").exit_code == 1


def test_publish_missing_runs_nothing_when_all_are_there(repository: Path, published: Path) -> None:
    before = published.stat().st_mtime_ns
    result = sbilib(repository, "publish", "--missing")
    assert result.exit_code == 0
    assert "every study has a published run" in result.output
    assert published.stat().st_mtime_ns == before
    edit(repository / "requirements.lock", "2.0", "2.1")
    assert "earlier versions of code or text: coin" in sbilib(repository, "publish", "--missing").output


def test_publish_goes_on_after_a_failure_and_ends_with_1(repository: Path, published: Path) -> None:
    before = published.read_bytes()
    edit(repository / "notebooks" / "params" / "coin.yml", "standard: {}", "standard: {bias: 2}")
    for name in ("notebooks/coin.md", "notebooks/params/coin.yml"):
        twin = repository / name.replace("coin", "twin")
        twin.write_bytes((repository / name).read_bytes())
    edit(repository / "notebooks" / "params" / "twin.yml", "bias: 2", "bias: 0.2")
    result = sbilib(repository, "publish", "--all")
    assert result.exit_code == 1
    assert "ValueError: bias must be in [0, 1], got 2.0" in result.stderr
    assert "1 of 2 studies could not be published" in result.stderr
    assert (repository / "book" / "runs" / "twin.ipynb").is_file()
    assert published.read_bytes() == before


def test_plain_papermill_runs_the_converted_notebook(repository: Path, tmp_path: Path) -> None:
    converted, executed = tmp_path / "plain.ipynb", tmp_path / "executed.ipynb"
    assert sbilib(repository, "convert", "coin", "--out", str(converted)).exit_code == 0
    command = ["papermill", str(converted), str(executed), "-p", "n_throws", "5", "-p", "bias", "1.0"]
    subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True, timeout=120)
    outputs = json.loads(executed.read_text(encoding="utf-8"))["cells"]
    assert any(
        "heads: 5" in "".join(output.get("text", "")) for c in outputs for output in c.get("outputs", [])
    )


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_in_mid_run_keeps_the_earlier_run(
    repository: Path, published: Path, number: signal.Signals, exit_code: int
) -> None:
    before = published.read_bytes()
    edit(repository / "notebooks" / "params" / "coin.yml", "smoke: {", "smoke: {kinds: [slow], ")
    command = [
        sys.executable,
        "-m",
        "sbilib.cli",
        "--root",
        str(repository),
        "publish",
        "coin",
        "--set",
        "smoke",
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test that runs in the background inherits an ignored SIGINT; a user at a terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    while "waiting" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == exit_code
    assert "sbilib: interrupted: nothing was written" in stderr
    assert "Traceback" not in stderr
    assert published.read_bytes() == before
    assert os.listdir(published.parent) == ["coin.ipynb"]
