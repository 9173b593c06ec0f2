"""A data set of the heavy Higgs search: sizes, splits, interrupts, and what its manifest says."""

from __future__ import annotations

import json
import pickle
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from sbilib.errors import DataError, DependencyError, ParameterError
from sbilib.simulation import generate
from sbilib.simulation.bsm_features import high_level_of_four_jets
from sbilib.simulation.bsm_generator import BsmGeneration
from sbilib.simulation.bsm_response import BsmResponse
from sbilib.simulation.bsm_sample import BsmSettings, BsmSizes, BsmSource
from sbilib.simulation.bsm_schema import BSM_FEATURES, BSM_FORMAT, BSM_LOW_LEVEL
from sbilib.simulation.check import check_sample
from sbilib.simulation.chunks import ChunkStore, make_chunk
from sbilib.simulation.files import MANIFEST, read_manifest, read_split, write_events, write_manifest
from sbilib.simulation.generate import PARTS, generate_sample, missing_events

from .toy_bsm import ToyBsmSource, toy_bsm_events

_SETTINGS = BsmSettings(seed=3, chunk_size=400)
_SIZES = BsmSizes(
    signal={"train": 60, "reference": 50}, background={"train": 80, "validation": 9, "reference": 70}
)


def _content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones and those in folders of it included."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set, made without interruption by one process."""
    folder = tmp_path_factory.mktemp("reference")
    generate_sample(folder, _SIZES, _SETTINGS, source=ToyBsmSource())
    return folder


def test_sizes_are_exact_and_no_event_comes_twice(reference: Path) -> None:
    found = check_sample(reference)
    assert found.rows == {
        ("signal", "train"): 60,
        ("signal", "reference"): 50,
        ("background", "train"): 80,
        ("background", "validation"): 9,
        ("background", "reference"): 70,
    }
    assert not (reference / PARTS).exists()


def test_tables_have_the_columns_of_the_public_file_in_gev(reference: Path) -> None:
    manifest = read_manifest(reference, BSM_FORMAT)
    table = pq.read_table(reference / "background-train.parquet")
    assert tuple(table.schema.names) == BSM_FEATURES
    events = read_split(reference, manifest, "background", "train", table_format=BSM_FORMAT)
    masses = high_level_of_four_jets(events)
    usable = np.isfinite(masses[:, 4])
    assert usable.sum() > 20
    stored = events[usable, len(BSM_LOW_LEVEL) + 4]
    np.testing.assert_allclose(masses[usable, 4], stored, atol=2e-3)


def test_the_manifest_says_how_the_events_were_made(reference: Path) -> None:
    manifest = read_manifest(reference, BSM_FORMAT)
    assert manifest.sample == "higgs-bsm"
    assert manifest.settings["generation"]["charged_mass"] == 325.0  # type: ignore[index]
    assert manifest.settings["response"]["bottom_efficiency"] == 0.77  # type: ignore[index]
    assert manifest.cross_sections == {"signal": 10.0, "background": 10.0}
    flow = manifest.settings["cut_flow"]["signal"]  # type: ignore[index]
    assert flow["produced"] == 2 * flow["preselected"]
    # The factor that all events share is left out of the simulation, not of the efficiency.
    assert manifest.efficiencies["signal"] == flow["two tags"] / flow["produced"] * 0.9405
    assert manifest.seeds["sample"] == 3
    assert {"sbilib", "numpy", "pythia"} <= set(manifest.versions)
    assert "tau_threshold" not in json.loads((reference / MANIFEST).read_text())


def test_a_worker_gets_copies_that_make_the_same_chunk(tmp_path: Path) -> None:
    # What a fresh process is sent; that processes change nothing else is tested for the Higgs case.
    chunks = []
    for copied in (False, True):
        task = (ToyBsmSource(), _SETTINGS, ChunkStore(tmp_path / str(copied), BSM_FORMAT), "signal", 2)
        chunks.append(make_chunk(*(pickle.loads(pickle.dumps(task)) if copied else task)))
    assert chunks[0] == chunks[1]
    assert chunks[0].rows > 0


@pytest.mark.parametrize("stop_at", [0, 1, 3])
def test_an_interrupted_data_set_goes_on_to_the_same_bytes(
    reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    real, n_chunks = generate.make_chunk, 0

    def interrupted(*arguments: object) -> object:
        nonlocal n_chunks
        n_chunks += 1
        if n_chunks > stop_at:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(generate, "make_chunk", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate_sample(tmp_path, _SIZES, _SETTINGS, source=ToyBsmSource())
    monkeypatch.setattr(generate, "make_chunk", real)
    missing = missing_events(tmp_path, _SIZES, _SETTINGS)
    assert sum(missing.values()) > 0
    assert (sum(missing.values()) < 269) == (stop_at > 0)
    generate_sample(tmp_path, _SIZES, _SETTINGS, source=ToyBsmSource())
    assert _content(tmp_path) == _content(reference)


def test_a_larger_data_set_begins_with_the_events_of_a_smaller_one(reference: Path, tmp_path: Path) -> None:
    sizes = BsmSizes(signal={"train": 150}, background={})
    manifest = generate_sample(tmp_path, sizes, _SETTINGS, source=ToyBsmSource())
    larger = read_split(tmp_path, manifest, "signal", "train", table_format=BSM_FORMAT)
    before = read_manifest(reference, BSM_FORMAT)
    smaller = read_split(reference, before, "signal", "train", table_format=BSM_FORMAT)
    np.testing.assert_array_equal(larger[: len(smaller)], smaller)


def test_a_chunk_of_which_nothing_is_selected_is_none(tmp_path: Path) -> None:
    settings = replace(_SETTINGS, chunk_size=1)
    sizes = BsmSizes(signal={"train": 3}, background={})
    manifest = generate_sample(tmp_path, sizes, settings, source=ToyBsmSource())
    assert manifest.rows("signal", "train") == 3
    assert manifest.seeds["chunks"]["signal"] > 3  # type: ignore[index]


def test_another_kind_of_data_set_is_named(reference: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"kind 'higgs-tau-tau', got 'higgs-bsm'.*simulate higgs`"):
        read_manifest(reference)
    with pytest.raises(DataError, match=r"missing or unfinished.*simulate higgs-bsm"):
        read_manifest(tmp_path, BSM_FORMAT)
    manifest = read_manifest(reference, BSM_FORMAT)
    write_manifest(tmp_path, replace(manifest, sample="higgs-to-nothing"))
    with pytest.raises(DataError, match="kind 'higgs-to-nothing', known are higgs-tau-tau, higgs-bsm"):
        check_sample(tmp_path)


def test_altered_files_and_events_that_come_twice_are_found(reference: Path, tmp_path: Path) -> None:
    manifest = read_manifest(reference, BSM_FORMAT)
    events = toy_bsm_events(30)
    files = tuple(
        write_events(
            tmp_path,
            f"signal-{split}.parquet",
            part,
            component="signal",
            split=split,
            table_format=BSM_FORMAT,
        )
        for split, part in (("train", events), ("reference", events[5:6]))
    )
    write_manifest(tmp_path, replace(manifest, files=files))
    with pytest.raises(DataError, match=r"1 of 31 events .* come more than once"):
        check_sample(tmp_path)
    path = tmp_path / "signal-train.parquet"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"altered or truncated.*simulate higgs-bsm"):
        check_sample(tmp_path)


def test_requests_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="split must be one of 'train', 'validation', 'reference'"):
        BsmSizes(signal={"test-1": 5}, background={})
    with pytest.raises(ParameterError, match="preselection"):
        BsmSettings(generation=BsmGeneration(preselection_pt=16.0))
    with pytest.raises(ParameterError, match="chunk_size"):
        BsmSettings(chunk_size=0)
    with pytest.raises(ParameterError, match="higgs-bsm need a source"):
        generate_sample(tmp_path, _SIZES, _SETTINGS)
    with pytest.raises(ParameterError, match="split must be one of 'train', 'validation', 'reference'"):
        write_events(
            tmp_path,
            "a.parquet",
            toy_bsm_events(3),
            component="signal",
            split="test-1",
            table_format=BSM_FORMAT,
        )


def test_other_thresholds_are_other_data() -> None:
    assert BsmSettings().digest != BsmSettings(response=BsmResponse.of_the_paper()).digest
    assert BsmSettings().digest != BsmSettings(generation=BsmGeneration(light_mass=126.0)).digest


def test_without_pythia_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pythia8mc", None)
    with pytest.raises(DependencyError, match=r"pip install 'sbilib\[simulate\]'"):
        BsmSource(BsmSettings()).prepare()


def test_pythia_makes_a_small_data_set(tmp_path: Path) -> None:
    pytest.importorskip("pythia8mc")
    settings = BsmSettings(seed=1, chunk_size=30)
    sizes = BsmSizes(signal={}, background={"train": 5, "reference": 3})
    manifest = generate_sample(tmp_path, sizes, settings, source=BsmSource(settings))
    assert check_sample(tmp_path).rows == {("background", "train"): 5, ("background", "reference"): 3}
    assert manifest.versions["pythia"].startswith("8.")
    assert 0.1 < manifest.efficiencies["background"] < 0.5
