"""Making a data set: exact sizes, disjoint splits, and the same bytes however often it is interrupted."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from sbilib import atomic
from sbilib.errors import DataError, DependencyError, ParameterError, SbilibError
from sbilib.simulation.check import check_sample
from sbilib.simulation.chunks import ChunkStore, PythiaSource, _chunk_seeds, make_chunk
from sbilib.simulation.files import MANIFEST, SPLITS, read_manifest, read_split
from sbilib.simulation.generate import PARTS, _Plan, generate_sample, missing_events
from sbilib.simulation.generator import GenerationSettings
from sbilib.simulation.sample import SampleSettings, SampleSizes

from .toy_truth import ToySource

_SETTINGS = SampleSettings(seed=3, chunk_size=300)
_SIZES = SampleSizes(
    signal={"train": 200, "validation": 31, "test-1": 17, "test-5": 40},
    background={"train": 230, "test-2": 50},
)
_REPOSITORY = Path(__file__).parents[2]


def _content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones and those in folders of it included."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set, made without interruption by one process."""
    folder = tmp_path_factory.mktemp("reference")
    generate_sample(folder, _SIZES, _SETTINGS, source=ToySource())
    return folder


def test_sizes_are_exact_and_no_event_comes_twice(reference: Path) -> None:
    found = check_sample(reference)
    wanted = {
        (component, split): _SIZES.of(component, split)
        for component in ("signal", "background")
        for split in SPLITS
        if _SIZES.of(component, split)
    }
    assert found.rows == wanted
    assert found.n_files == len(wanted) == len(list(reference.glob("*.parquet")))
    assert not (reference / PARTS).exists()


def test_the_manifest_says_how_the_events_were_made(reference: Path) -> None:
    manifest = read_manifest(reference)
    assert manifest.tau_threshold == 21.0
    assert manifest.settings["seed"] == 3
    assert manifest.settings["response"]["tau_pt_min"] == 21.0  # type: ignore[index]
    # The toy has 10 pb, half of the pairs are lepton and hadron, and half of these are preselected.
    assert manifest.cross_sections == {"signal": 5.0, "background": 5.0}
    flow = manifest.settings["cut_flow"]["signal"]  # type: ignore[index]
    assert flow["produced"] == 2 * flow["preselected"]
    # The factor that all events share is left out of the simulation, not of the efficiency.
    common = _SETTINGS.response.common_efficiency
    assert manifest.efficiencies["signal"] == flow["tau pt and eta"] / flow["produced"] * common
    assert {"sbilib", "numpy", "pythia"} <= set(manifest.versions)


def test_a_larger_data_set_begins_with_the_events_of_a_smaller_one(reference: Path, tmp_path: Path) -> None:
    sizes = SampleSizes(signal={"train": 500}, background={})
    manifest = generate_sample(tmp_path, sizes, _SETTINGS, source=ToySource())
    larger = read_split(tmp_path, manifest, "signal", "train")
    smaller = read_split(reference, read_manifest(reference), "signal", "train")
    np.testing.assert_array_equal(larger[: len(smaller)], smaller)


def test_the_number_of_workers_does_not_change_a_byte(reference: Path, tmp_path: Path) -> None:
    generate_sample(tmp_path, _SIZES, _SETTINGS, source=ToySource(), workers=2)
    assert _content(tmp_path) == _content(reference)


def test_another_seed_gives_other_events(reference: Path, tmp_path: Path) -> None:
    manifest = generate_sample(tmp_path, _SIZES, replace(_SETTINGS, seed=4), source=ToySource())
    assert manifest.digest != read_manifest(reference).digest


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interrupt_before_or_after_any_file_is_written_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    sizes = SampleSizes(signal={"train": 200, "test-1": 20}, background={"train": 20})
    generate_sample(tmp_path / "whole", sizes, _SETTINGS, source=ToySource())
    whole = _content(tmp_path / "whole")
    real, stop_at, n_written = os.replace, 0, 0

    def interrupted(source: str, target: str) -> None:
        nonlocal n_written
        n_written += 1
        if n_written != stop_at:
            return real(source, target)
        if when == "after":
            real(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic.os, "replace", interrupted)
    n_finished = 0
    while not n_finished:
        stop_at, n_written = stop_at + 1, 0
        folder = tmp_path / str(stop_at)
        try:
            generate_sample(folder, sizes, _SETTINGS, source=ToySource())
        except KeyboardInterrupt:
            generate_sample(folder, sizes, _SETTINGS, source=ToySource())
        else:
            n_finished = stop_at - 1
        assert _content(folder) == whole
    # Two files for each chunk, three tables, and the manifest.
    chunks: dict[str, int] = read_manifest(tmp_path / "whole").seeds["chunks"]  # type: ignore[assignment]
    assert n_finished == 2 * sum(chunks.values()) + 3 + 1


_PROGRAM = """
import sys
from pathlib import Path
from sbilib.simulation.generate import generate_sample
from tests.simulation.test_generate import _SETTINGS, _SIZES
from tests.simulation.toy_truth import ToySource
if __name__ == "__main__":
    generate_sample(Path(sys.argv[1]), _SIZES, _SETTINGS, source=ToySource(seconds=0.3), workers=2)
"""


def test_a_killed_program_leaves_no_workers_behind_and_its_data_set_can_be_finished(
    reference: Path, tmp_path: Path
) -> None:
    program, folder = tmp_path / "program.py", tmp_path / "sample"
    program.write_text(_PROGRAM, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(_REPOSITORY), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, str(program), str(folder)], env=environment)
    while not list((folder / PARTS).glob("*.json")):
        assert process.poll() is None, "the program ended before it could be killed"
        time.sleep(0.02)
    workers = _children(process.pid)
    process.kill()
    process.wait()
    while any(Path("/proc", str(worker)).exists() for worker in workers):
        time.sleep(0.02)
    assert not (folder / MANIFEST).exists()
    missing = missing_events(folder, _SIZES, _SETTINGS)
    assert 0 < sum(missing.values()) < _SIZES.total("signal") + _SIZES.total("background")
    generate_sample(folder, _SIZES, _SETTINGS, source=ToySource())
    assert _content(folder) == _content(reference)


def _children(parent: int) -> list[int]:
    """Processes whose parent is ``parent``; empty where there is no /proc."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        if fields[1] == str(parent):
            found.append(int(status.parent.name))
    return found


@pytest.mark.parametrize("harm", ["truncate", "delete", "record"])
def test_a_damaged_chunk_is_made_again(reference: Path, tmp_path: Path, harm: str) -> None:
    settings, store = _SETTINGS, ChunkStore(tmp_path / PARTS)
    with pytest.raises(SbilibError, match="stop"):
        generate_sample(tmp_path, _SIZES, settings, source=_StopsAt(component="background"))
    assert store.finished("signal", settings.digest)
    if harm == "truncate":
        path = store.table("signal", 0)
        path.write_bytes(path.read_bytes()[:-20])
    elif harm == "delete":
        store.table("signal", 0).unlink()
    else:
        store.record("signal", 0).write_text("{", encoding="utf-8")
    assert 0 not in store.finished("signal", settings.digest)
    generate_sample(tmp_path, _SIZES, settings, source=ToySource())
    assert _content(tmp_path) == _content(reference)


@dataclass(frozen=True)
class _StopsAt(ToySource):
    component: str = "signal"

    def events(self, component, n_events, seed):  # type: ignore[no-untyped-def]
        if component == self.component:
            raise SbilibError("stop")
        return super().events(component, n_events, seed)


def test_the_next_chunk_is_the_first_that_is_neither_finished_nor_running(tmp_path: Path) -> None:
    store, sizes = ChunkStore(tmp_path), SampleSizes(signal={"train": 500}, background={})
    chunks = [make_chunk(ToySource(), _SETTINGS, store, "signal", index) for index in range(1, 9)]
    plan = _Plan(sizes, _SETTINGS, store)
    assert plan.rows("signal") == sum(chunk.rows for chunk in chunks) > 500
    # Enough events are there, but the first chunk is not, and without it none of the others counts.
    assert plan.next_chunk(frozenset()) == ("signal", 0)
    assert plan.next_chunk(frozenset({("signal", 0)})) is None
    store.record("signal", 2).unlink()
    plan = _Plan(sizes, _SETTINGS, store)
    assert plan.next_chunk(frozenset({("signal", 0)})) == ("signal", 2)


def test_a_finished_data_set_is_not_made_again(reference: Path) -> None:
    before = _content(reference)
    generate_sample(reference, _SIZES, _SETTINGS, source=_StopsAt(component="signal"))
    assert _content(reference) == before


@pytest.mark.parametrize("other", ["sizes", "settings"])
def test_a_finished_data_set_is_not_overwritten_by_another(reference: Path, other: str) -> None:
    before = _content(reference)
    sizes = replace(_SIZES, signal={"train": 5}) if other == "sizes" else _SIZES
    settings = replace(_SETTINGS, seed=9) if other == "settings" else _SETTINGS
    with pytest.raises(DataError, match="already holds a finished data set"):
        generate_sample(reference, sizes, settings, source=ToySource())
    assert _content(reference) == before


def test_chunks_of_other_settings_are_not_mixed_in(tmp_path: Path) -> None:
    with pytest.raises(SbilibError, match="stop"):
        generate_sample(tmp_path, _SIZES, _SETTINGS, source=_StopsAt(component="background"))
    with pytest.raises(DataError, match="other settings"):
        generate_sample(tmp_path, _SIZES, replace(_SETTINGS, seed=8), source=ToySource())


def test_a_worker_that_dies_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SbilibError, match="a worker process died"):
        generate_sample(tmp_path, _SIZES, _SETTINGS, source=ToySource(dies=True), workers=2)


def test_thresholds_that_nothing_passes_are_reported(tmp_path: Path) -> None:
    response = replace(_SETTINGS.response, lepton_pt_min=1e6)
    with pytest.raises(DataError, match=r"none of .* passes the detector"):
        generate_sample(
            tmp_path, _SIZES, replace(_SETTINGS, chunk_size=5, response=response), source=ToySource()
        )


def test_without_pythia_the_message_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pythia8mc", None)
    for route in ("fast", "plain"):
        source = PythiaSource(SampleSettings(route=route), tmp_path / "library.npz")
        with pytest.raises(DependencyError, match=r"pip install 'sbilib\[simulate\]'"):
            source.prepare()


def test_no_two_chunks_share_a_seed() -> None:
    seeds = [
        _chunk_seeds(1, component, index) for component in ("signal", "background") for index in range(2000)
    ]
    assert len({seed.pythia for seed in seeds}) == len({tuple(seed.detector) for seed in seeds}) == len(seeds)


def test_requests_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ParameterError, match="split"):
        SampleSizes(signal={"exam": 5}, background={})
    with pytest.raises(ParameterError, match="signal train"):
        SampleSizes(signal={"train": -5}, background={})
    with pytest.raises(ParameterError, match="route"):
        SampleSettings(route="scenic")
    with pytest.raises(ParameterError, match="preselection"):
        SampleSettings(generation=GenerationSettings(preselection_pt=22.0))


def test_check_says_what_is_wrong(reference: Path, tmp_path: Path) -> None:
    for path in reference.glob("*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    victim = tmp_path / "signal-train.parquet"
    original = victim.read_bytes()
    victim.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    with pytest.raises(DataError, match="altered"):
        check_sample(tmp_path)
    victim.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        check_sample(tmp_path)
    with pytest.raises(DataError, match="missing or unfinished"):
        check_sample(tmp_path / "nowhere")


def test_check_finds_splits_that_overlap(reference: Path, tmp_path: Path) -> None:
    from sbilib.simulation.files import write_events, write_manifest

    manifest = read_manifest(reference)
    train = read_split(reference, manifest, "signal", "train")
    files = (
        write_events(tmp_path, "signal-train.parquet", train, component="signal", split="train"),
        write_events(tmp_path, "signal-test-1.parquet", train[7:8], component="signal", split="test-1"),
    )
    write_manifest(tmp_path, replace(manifest, files=files))
    with pytest.raises(DataError, match=r"1 of 201 events .* come more than once"):
        check_sample(tmp_path)


def test_pythia_makes_a_small_data_set(tmp_path: Path) -> None:
    pytest.importorskip("pythia8mc")
    sizes = SampleSizes(signal={"train": 5}, background={})
    settings = SampleSettings(seed=1, route="plain", chunk_size=20)
    manifest = generate_sample(tmp_path, sizes, settings)
    assert check_sample(tmp_path).rows == {("signal", "train"): 5}
    assert manifest.versions["pythia"].startswith("8.")
    assert 0.05 < manifest.efficiencies["signal"] < 0.5
