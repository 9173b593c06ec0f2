"""``sbilib simulate``: it makes data, checks them, and says what is missing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from sbilib.cli import app
from sbilib.simulation import generate
from sbilib.simulation.files import read_manifest
from sbilib.simulation.sample import SampleSettings

from .simulation.toy_bsm import ToyBsmSource
from .simulation.toy_truth import ToySource


def simulate(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["simulate", *arguments])


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events come from the toy instead of Pythia."""
    monkeypatch.setattr(generate, "PythiaSource", lambda settings, path: ToySource())


@pytest.mark.usefixtures("toy")
def test_training_events_come_with_validation_and_five_test_sets(tmp_path: Path) -> None:
    result = simulate("higgs", "--signal", "100", "--background", "40", "--output", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert str(tmp_path) in result.output
    manifest = read_manifest(tmp_path)
    rows = {(file.component, file.split): file.rows for file in manifest.files}
    assert (rows["signal", "train"], rows["background", "train"]) == (100, 40)
    assert (rows["signal", "validation"], rows["background", "validation"]) == (10, 4)
    assert [rows["background", f"test-{n}"] for n in range(1, 6)] == [7] * 5
    checked = simulate("check", str(tmp_path))
    assert checked.exit_code == 0
    assert "14 files are as the manifest says" in checked.output


@pytest.mark.usefixtures("toy")
def test_the_default_folder_is_where_the_problem_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sbilib.problems.higgs_data import cached_data_folder, data_folder

    monkeypatch.setenv("SBILIB_DATA", str(tmp_path))
    assert simulate("higgs", "--signal", "30", "--background", "30").exit_code == 0
    assert data_folder() == cached_data_folder()
    assert data_folder().is_relative_to(tmp_path)


@pytest.fixture
def bsm_toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events of the heavy Higgs search come from the toy instead of Pythia."""
    from sbilib.simulation import bsm_sample

    monkeypatch.setattr(bsm_sample, "BsmSource", lambda settings: ToyBsmSource())


@pytest.mark.usefixtures("bsm_toy")
def test_events_of_the_heavy_higgs_search_come_with_validation_and_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sbilib.problems.bsm_data import bsm_data_folder

    monkeypatch.setenv("SBILIB_DATA", str(tmp_path))
    result = simulate("higgs-bsm", "--signal", "20", "--background", "50", "--seed", "3")
    assert result.exit_code == 0, result.output
    folder = bsm_data_folder()
    assert str(folder) in result.output
    checked = simulate("check", str(folder))
    assert checked.exit_code == 0, checked.output
    lines = [line.split() for line in checked.output.splitlines()]
    assert lines[:5] == [
        ["signal", "train", "20", "events"],
        ["signal", "reference", "20", "events"],
        ["background", "train", "50", "events"],
        ["background", "validation", "5", "events"],
        ["background", "reference", "60", "events"],
    ]
    again = simulate("higgs-bsm", "--signal", "21", "--background", "50", "--seed", "3")
    assert again.exit_code == 1
    assert "already holds a finished data set" in again.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--signal", "-1"), "signal"),
        (("--signal", "0", "--background", "0"), "ask for some events"),
        (("--workers", "0"), "workers"),
        (("--seed", "-3"), "seed"),
    ],
)
def test_a_wrong_request_for_the_heavy_higgs_search_is_refused(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = simulate("higgs-bsm", "--output", str(tmp_path), *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert not list(tmp_path.iterdir())


def test_without_pythia_it_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pythia8mc", None)
    result = simulate("higgs", "--signal", "10", "--background", "10", "--output", str(tmp_path))
    assert result.exit_code == 1
    assert "pip install 'sbilib[simulate]'" in result.output
    assert "Traceback" not in result.output


@pytest.mark.usefixtures("toy")
def test_an_interrupt_keeps_the_chunks_and_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = generate.make_chunk

    def interrupted(source: Any, settings: Any, store: Any, component: str, index: int) -> Any:
        if index == 1:
            raise KeyboardInterrupt
        return real(source, settings, store, component, index)

    arguments = ("higgs", "--signal", "200", "--background", "0", "--output", str(tmp_path))
    monkeypatch.setattr(generate, "make_chunk", interrupted)
    small = classmethod(lambda cls, sizes, *, seed, route: cls(seed=seed, route=route, chunk_size=300))
    monkeypatch.setattr(SampleSettings, "for_sizes", small)
    stopped = simulate(*arguments)
    assert stopped.exit_code == 130, stopped.output
    assert "signal events" in stopped.output
    assert "the same command goes on" in stopped.output
    unfinished = simulate("check", str(tmp_path))
    assert unfinished.exit_code == 1
    assert "unfinished: 1 chunks" in unfinished.output
    monkeypatch.setattr(generate, "make_chunk", real)
    assert simulate(*arguments).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--signal", "-1"), "signal"),
        (("--signal", "0", "--background", "0"), "ask for some events"),
        (("--route", "scenic"), "route"),
        (("--workers", "0"), "workers"),
        (("--seed", "-3"), "seed"),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = simulate("higgs", "--output", str(tmp_path), *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert not list(tmp_path.iterdir())


def test_check_of_nothing_says_how_to_make_data(tmp_path: Path) -> None:
    result = simulate("check", str(tmp_path / "nowhere"))
    assert result.exit_code == 1
    assert "sbilib simulate higgs" in result.output


def write_summary(path: Path) -> None:
    """What the generator leaves beside events."""
    facts = {"seed": 7, "n_produced": 3000, "n_selected": 800, "cross_section": 2.0}
    path.write_text(json.dumps(facts | {"pythia_version": "8.317"}), encoding="utf-8")


def test_the_routes_are_compared_from_folders(tmp_path: Path) -> None:
    from .simulation.toy_truth import toy_truth

    for route, seed in (("plain", 1), ("fast", 5)):
        (tmp_path / route).mkdir()
        for number, name in enumerate(("signal", "background")):
            toy_truth(800, seed + number).save(tmp_path / route / f"{name}-0000.npz")
            write_summary(tmp_path / route / f"{name}-0000.json")
    folders = ("--plain-events", str(tmp_path / "plain"), "--fast-events", str(tmp_path / "fast"))
    result = simulate("compare-routes", *folders, "--output", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "manifest.json").is_file()
    assert result.output.count("p of all 29 features") == 4
    nothing = simulate("compare-routes", "--plain-events", str(tmp_path), "--output", str(tmp_path / "no"))
    assert nothing.exit_code == 1
    assert "holds 0 finished files of signal events" in nothing.output
    alone = simulate("compare-routes", *folders, "--component", "signal")
    assert alone.exit_code == 2
    assert "--component needs --output" in alone.output


def test_numbers_of_events_and_workers_go_to_the_generation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from .simulation.toy_truth import toy_truth

    calls: list[tuple[str, int, dict[str, object]]] = []

    def make(
        folder: Path, route: str, n_events: int, *, components: tuple[str, ...], **options: object
    ) -> None:
        calls.append((route, n_events, {"components": components, **options}))
        folder.mkdir(parents=True, exist_ok=True)
        for name in components:
            toy_truth(800, n_events).save(folder / f"{name}-0000.npz")
            write_summary(folder / f"{name}-0000.json")

    monkeypatch.setenv("SBILIB_DATA", str(tmp_path))
    monkeypatch.setattr("sbilib.studies.higgs_truth.make_truth", make)
    numbers = ("--plain", "40", "--fast", "60", "--seed", "3", "--workers", "2", "--component", "signal")
    result = simulate("compare-routes", *numbers, "--output", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    assert [call[:2] for call in calls] == [("plain", 40), ("fast", 60)]
    for _, _, options in calls:
        assert options.pop("say") is not None
        assert options == {"components": ("signal",), "seed": 3, "workers": 2}
    assert result.output.count("signal") == 4
    assert "background" not in result.output
    # Each seed has folders of its own: events of one are never taken for those of another.
    other = simulate("compare-routes", "--seed", "4", "--output", str(tmp_path / "other"))
    assert other.exit_code == 1
    assert "holds 0 finished files of signal events" in other.output
    # More events than there are files for are missed, not made up for.
    more = simulate("compare-routes", *numbers[:1], "1500", *numbers[2:], "--output", str(tmp_path / "more"))
    assert more.exit_code == 1
    assert "2 or more are needed" in more.output
