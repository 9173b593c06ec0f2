"""Every study of the book runs from beginning to end at its smallest parameter set."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import pytest

from sbilib.runs import find_root, load_study, run_study, study_names
from sbilib.runs.cleaning import check_no_machine_paths

ROOT = find_root(Path(__file__).parent)
MEMORY_LIMIT_GB = 4.0


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder for checkpoints, so that no earlier training hides a failure."""
    return tmp_path_factory.mktemp("checkpoints")


@pytest.mark.study
@pytest.mark.parametrize("name", study_names(ROOT))
def test_study_runs_at_smoke_in_bounded_memory(
    name: str, tmp_path: Path, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nbformat

    monkeypatch.setenv("SBILIB_CACHE", str(checkpoints))
    study = load_study(name, ROOT)
    path = run_study(study, "smoke", out_dir=tmp_path, progress=False)
    check_no_machine_paths(nbformat.read(path, as_version=4), study)
    unit = 1 if sys.platform == "darwin" else 1024
    peak_gb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 1e9
    assert peak_gb < MEMORY_LIMIT_GB
