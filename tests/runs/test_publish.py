"""A published run holds its results and their origin, nothing of the machine, and knows when it is stale."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest

from sbilib.errors import StudyError
from sbilib.runs import (
    RunError,
    load_study,
    publish_study,
    published_status,
    read_provenance,
    read_published,
    refresh_text,
    run_study,
)
from sbilib.runs.cleaning import clean_notebook
from sbilib.runs.imports import used_modules
from sbilib.runs.provenance import module_hashes

from ..tiny_study import edit


def _record(path: Path):
    return read_provenance(nbformat.read(path, as_version=4), path.name)


def _state(root: Path) -> tuple[str, tuple[str, ...]]:
    status = published_status(root, "coin")
    return status.state, status.reasons


def test_results_are_kept_and_passing_output_is_not(published: Path) -> None:
    notebook = nbformat.read(published, as_version=4)
    nbformat.validate(notebook)
    streams = [(output.name, output.text) for cell in notebook.cells for output in cell.get("outputs", [])]
    assert len(streams) == 1
    assert streams[0][0] == "stdout"
    assert streams[0][1].startswith("heads: ")


def test_parameters_that_differ_from_their_defaults_are_injected(published: Path) -> None:
    notebook = nbformat.read(published, as_version=4)
    injected = [cell for cell in notebook.cells if "injected-parameters" in cell.metadata.get("tags", [])]
    assert len(injected) == 1
    assert injected[0].source.splitlines()[1:] == ["n_throws = 10"]


def test_provenance_is_complete(published: Path, repository: Path) -> None:
    record = _record(published)
    source = (repository / "notebooks" / "coin.md").read_bytes()
    lock = (repository / "requirements.lock").read_bytes()
    assert record.study == "coin"
    assert record.set == "smoke"
    assert record.parameters == load_study("coin", repository).values("smoke")
    assert record.seed == 1
    assert record.source_sha256 == hashlib.sha256(source).hexdigest()
    assert record.lock_sha256 == hashlib.sha256(lock).hexdigest()
    assert set(record.modules_sha256) == {"likelihood/nll.py", "likelihood/grid.py"}
    assert record.pins == {"numpy": "2.0"}
    assert record.device.startswith(("CPU: ", "CUDA: "))
    assert record.started_at.endswith("+00:00")
    assert record.wall_time_s > 0
    assert {"python", "torch", "nflows", "numpy", "scipy", "matplotlib"} <= set(record.versions)


def test_nothing_of_the_machine_is_published(published_text: str) -> None:
    for folder in (sys.prefix, tempfile.gettempdir(), str(Path.home()), "input_path", "papermill"):
        assert folder not in published_text


def test_run_that_prints_a_folder_of_the_machine_is_refused(repository: Path) -> None:
    edit(repository / "notebooks" / "params" / "coin.yml", "smoke: {", "smoke: {kinds: [leaky], ")
    with pytest.raises(StudyError, match=r"cell \d+ names .*relative to the repository"):
        publish_study(load_study("coin", repository), "smoke", progress=False)
    assert published_status(repository, "coin").state == "missing"


def test_fresh_run_is_current(published: Path, repository: Path) -> None:
    assert _state(repository) == ("current", ())


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        ("notebooks/coin.md", "How often", "How many times", "text of the notebook changed"),
        ("notebooks/coin.md", "rng.random() <", "rng.random() <=", "code of the notebook changed"),
        ("sbilib/likelihood/nll.py", "return 1", "return 2", "sbilib/likelihood/nll.py changed"),
        ("sbilib/likelihood/grid.py", "2", "4", "sbilib/likelihood/grid.py changed"),
        ("requirements.lock", "2.0", "2.1", "numpy 2.0 -> 2.1"),
        (
            "notebooks/params/coin.yml",
            "n_throws: 10}",
            "n_throws: 20}",
            "parameters of set `smoke` changed (n_throws: 10 -> 20)",
        ),
    ],
)
def test_change_of_a_source_makes_it_stale_and_says_which(
    published: Path, repository: Path, file: str, old: str, new: str, reason: str
) -> None:
    edit(repository / file, old, new)
    assert _state(repository) == ("stale", (reason,))


def test_change_that_cannot_touch_a_number_leaves_it_current(published: Path, repository: Path) -> None:
    edit(repository / "sbilib" / "cli.py", "print(1)", "print(2)")
    edit(repository / "sbilib" / "likelihood" / "scan.py", "return 3", "return 4")
    edit(repository / "requirements.lock", "numpy==2.0", "numpy==2.0\nrich==14.0")
    edit(
        repository / "sbilib" / "likelihood" / "nll.py",
        "    return 1",
        '    """Doc."""\n\n    return 1  # why',
    )
    assert _state(repository) == ("current", ())


def test_hash_of_a_module_sees_code_and_strings_in_code(tmp_path: Path) -> None:
    package, notebook = tmp_path / "library", nbformat.v4.new_notebook()
    package.mkdir()
    notebook.cells = [nbformat.v4.new_code_cell("%matplotlib inline\nimport library.a")]
    hashes = []
    for code in ("x = 'a # b'\n", "x = 'a # c'\n", "x = 'a # c'  # why\n"):
        (package / "a.py").write_text(code, encoding="utf-8")
        hashes.append(module_hashes(notebook, package)["a.py"])
    assert hashes[0] != hashes[1] == hashes[2]


@pytest.mark.parametrize(
    ("code", "files"),
    [
        ("import numpy, math", []),
        ("from sbilib.likelihood import scan", ["likelihood/scan.py"]),
        ("from sbilib.likelihood.nll import nll", ["likelihood/grid.py", "likelihood/nll.py"]),
        ("from sbilib import cli", ["cli.py"]),
        ("def later():\n    import sbilib.likelihood.grid", ["likelihood/grid.py"]),
    ],
)
def test_imports_are_followed_to_the_modules_that_define_names(
    repository: Path, code: str, files: list[str]
) -> None:
    package = repository / "sbilib"
    assert [path.relative_to(package).as_posix() for path in used_modules([code], package)] == files


@pytest.mark.parametrize(
    "code", ["import sbilib", "from sbilib.likelihood import *", "from sbilib.likelihood import unknown"]
)
def test_a_star_a_package_or_a_name_of_the_room_itself_counts_as_everything_in_it(
    repository: Path, code: str
) -> None:
    used = used_modules([code], repository / "sbilib")
    assert {"nll.py", "grid.py", "scan.py", "__init__.py"} <= {path.name for path in used}


@pytest.mark.parametrize(("name", "state"), [("errors.py", "current"), ("digest.py", "stale")])
def test_a_new_kind_of_error_leaves_runs_current(
    published: Path, repository: Path, name: str, state: str
) -> None:
    (repository / "sbilib" / name).write_text("x = 1\n", encoding="utf-8")
    record = json.loads(published.read_text(encoding="utf-8"))
    # As if the module had been used then, with other code.
    record["metadata"]["sbilib"]["modules_sha256"][name] = "0" * 64
    published.write_text(json.dumps(record), encoding="utf-8")
    assert _state(repository)[0] == state


def test_missing_broken_and_orphaned_runs_are_told_apart(published: Path, repository: Path) -> None:
    good = published.read_text(encoding="utf-8")
    published.write_text(good[:500], encoding="utf-8")
    assert "cannot be read" in published_status(repository, "coin").reasons[0]
    stripped = json.loads(good)
    del stripped["metadata"]["sbilib"]
    published.write_text(json.dumps(stripped), encoding="utf-8")
    assert "no complete record" in published_status(repository, "coin").reasons[0]
    published.write_text(good, encoding="utf-8")
    (repository / "notebooks" / "coin.md").unlink()
    assert "no longer exists" in published_status(repository, "coin").reasons[0]
    published.unlink()
    assert published_status(repository, "coin").state == "missing"


def test_text_is_refreshed_without_touching_outputs(published: Path, repository: Path) -> None:
    before = nbformat.read(published, as_version=4)
    edit(repository / "notebooks" / "coin.md", "Then it ends.", "Then it ends.\n\n+++\n\nWell.")
    edit(repository / "notebooks" / "coin.md", ":tags: [last]", ":tags: [last, hide-input]")
    refresh_text(load_study("coin", repository))
    after = nbformat.read(published, as_version=4)
    assert _state(repository) == ("current", ())
    assert len(after.cells) == len(before.cells) + 1
    assert any(cell.source == "Well." for cell in after.cells)
    assert after.cells[-1].metadata.tags == ["last", "hide-input"]
    outputs = [[c.outputs for c in book.cells if c.cell_type == "code"] for book in (before, after)]
    assert outputs[0] == outputs[1]


def test_text_is_not_refreshed_when_the_code_changed(published: Path, repository: Path) -> None:
    edit(repository / "notebooks" / "coin.md", "rng.random() <", "rng.random() <=")
    before = published.read_bytes()
    with pytest.raises(StudyError, match="code changed since"):
        refresh_text(load_study("coin", repository))
    assert published.read_bytes() == before


def test_failed_cell_gives_one_line_and_keeps_the_earlier_run(repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "coin.ipynb").write_text("earlier", encoding="utf-8")
    with pytest.raises(RunError) as caught:
        run_study(load_study("coin", repository), "smoke", {"bias": 2.0}, out_dir=out, progress=False)
    message = str(caught.value)
    assert "\n" not in message
    assert "failed in cell 4 ('if bias > 1:'): ValueError: bias must be in [0, 1], got 2.0" in message
    assert load_study("coin", repository).notebook.cells[4].source.startswith("if bias > 1:")
    assert (out / "coin.ipynb").read_text(encoding="utf-8") == "earlier"
    failed = nbformat.read(out / "coin.failed.ipynb", as_version=4)
    assert any(output.output_type == "error" for cell in failed.cells for output in cell.get("outputs", []))


def test_dead_kernel_gives_one_line(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"the kernel died.*--set smoke"):
        run_study(
            load_study("coin", repository), "smoke", {"kinds": ["killed"]}, out_dir=tmp_path, progress=False
        )
    assert not (tmp_path / "coin.ipynb").exists()


def test_kernel_of_another_environment_is_refused(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "jupyter" / "kernels" / "python3"
    folder.mkdir(parents=True)
    spec = {"argv": ["/nowhere/python"], "display_name": "Other", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    with pytest.raises(StudyError, match=r"starts /nowhere/python, not the Python of this environment"):
        run_study(load_study("coin", repository), "smoke", out_dir=tmp_path, progress=False)


def test_commit_and_uncommitted_changes_are_recorded(repository: Path) -> None:
    from datetime import UTC, datetime

    from sbilib.runs.provenance import collect_provenance

    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments]
        return subprocess.run(
            command, cwd=repository, check=True, capture_output=True, text=True
        ).stdout.strip()

    def record():
        study = load_study("coin", repository)
        return collect_provenance(study, "smoke", study.values("smoke"), [], datetime.now(UTC))

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    clean = record()
    assert clean.git_commit == git("rev-parse", "HEAD")
    assert clean.git_dirty is False
    edit(repository / "notebooks" / "coin.md", "How often", "How many times")
    assert record().git_dirty is True


def test_unpublished_study_says_how_to_publish_it(repository: Path) -> None:
    with pytest.raises(StudyError, match="sbilib publish coin"):
        read_published(repository, "coin")


def test_addresses_of_objects_go_where_there_is_a_real_representation(repository: Path) -> None:
    bare = "<pandas.io.formats.style.Styler at 0x7f44f275f850>"
    cell = nbformat.v4.new_code_cell("table")
    cell.outputs = [
        nbformat.v4.new_output("display_data", data={"text/plain": bare, "text/html": "<table></table>"}),
        nbformat.v4.new_output("display_data", data={"text/plain": bare}),
        nbformat.v4.new_output("display_data", data={"text/plain": "42", "text/html": "<b>42</b>"}),
    ]
    notebook = nbformat.v4.new_notebook(cells=[cell])
    clean_notebook(notebook, load_study("coin", repository))
    assert [sorted(output.data) for output in notebook.cells[0].outputs] == [
        ["text/html"],
        ["text/plain"],
        ["text/html", "text/plain"],
    ]
