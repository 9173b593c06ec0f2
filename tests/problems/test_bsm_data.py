from pathlib import Path

import numpy as np
import pytest
import torch

from sbilib.errors import DataError, ParameterError
from sbilib.problems import BsmFolder, BsmTables, bsm_data_folder, default_bsm_data, split_bsm_events
from sbilib.simulation import BSM_CONTINUOUS, BSM_FEATURES, BSM_FORMAT
from sbilib.simulation.check import check_sample
from sbilib.simulation.files import Manifest, write_events, write_manifest
from tests.simulation.toy_bsm import toy_bsm_events

SHIPPED = Path(__file__).parents[2] / "data" / "higgs-bsm"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished data set of 20 training events of each component."""
    files = [
        write_events(
            tmp_path,
            f"{component}-train.parquet",
            toy_bsm_events(20, seed),
            component=component,
            split="train",
            table_format=BSM_FORMAT,
        )
        for component, seed in (("signal", 1), ("background", 2))
    ]
    write_manifest(tmp_path, Manifest(files=tuple(files), sample="higgs-bsm"))
    return tmp_path


def test_a_folder_gives_the_events_that_were_written(folder: Path) -> None:
    data = BsmFolder(folder)
    events = data.events("background", "train", BSM_FEATURES)
    assert events.dtype == torch.float32
    np.testing.assert_array_equal(events.numpy(), toy_bsm_events(20, 2))
    continuous = data.events("background", "train")
    assert continuous.shape == (20, 18)
    assert torch.equal(continuous[:, 0], events[:, 0])
    masses = data.events("background", "train", ["m_bb", "lepton_pT"])
    assert torch.equal(masses, events[:, [25, 0]])


def test_what_is_changed_in_memory_does_not_come_back(folder: Path) -> None:
    data = BsmFolder(folder)
    data.events("signal", "train", BSM_FEATURES).zero_()
    assert bool((data.events("signal", "train", ["m_bb"]) > 0).all())


def test_a_damaged_folder_is_refused(folder: Path) -> None:
    path = folder / "signal-train.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"altered or truncated.*simulate higgs-bsm"):
        BsmFolder(folder).events("signal", "train")
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        BsmFolder(folder).events("signal", "train")
    with pytest.raises(DataError, match="no background events for 'reference'"):
        BsmFolder(folder).events("background", "reference")


def test_unknown_names_are_refused(folder: Path) -> None:
    data = BsmFolder(folder)
    with pytest.raises(ParameterError, match="component"):
        data.events("ttbar", "train")
    with pytest.raises(ParameterError, match="split"):
        data.events("signal", "test-1")
    with pytest.raises(ParameterError, match="unknown"):
        data.events("signal", "train", ["DER_mass_vis"])


def test_the_folder_is_found_where_it_is_made(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBILIB_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"no events of the heavy Higgs search.*simulate higgs-bsm"):
        bsm_data_folder()
    place = tmp_path / "some" / "higgs-bsm"
    place.mkdir(parents=True)
    for path in folder.glob("*.*"):
        (place / path.name).write_bytes(path.read_bytes())
    monkeypatch.setenv("SBILIB_DATA", str(place.parent))
    assert default_bsm_data().digest == BsmFolder(folder).digest


def test_tables_in_memory_give_what_they_hold() -> None:
    tables = {name: split_bsm_events(toy_bsm_events(40, 3), seed=1) for name in ("signal", "background")}
    data = BsmTables(tables)
    assert torch.equal(data.events("signal", "train", BSM_FEATURES), tables["signal"]["train"])
    assert data.events("signal", "validation").shape == (2, len(BSM_CONTINUOUS))
    changed = {
        name: {split: table.clone() for split, table in parts.items()} for name, parts in tables.items()
    }
    assert BsmTables(changed).digest == data.digest
    changed["signal"]["train"][0, 25] += 1.0
    assert BsmTables(changed).digest != data.digest


def test_splits_are_disjoint_and_together_everything() -> None:
    events = toy_bsm_events(60, 4)
    parts = split_bsm_events(events, seed=2)
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 27,
        "validation": 3,
        "reference": 30,
    }
    together = torch.cat(list(parts.values())).numpy()
    np.testing.assert_array_equal(np.sort(together[:, 27]), np.sort(events[:, 27]))
    again, other = split_bsm_events(events, seed=2), split_bsm_events(events, seed=3)
    assert torch.equal(again["train"], parts["train"])
    assert not torch.equal(other["train"], parts["train"])


def test_tables_and_splits_that_cannot_be_are_refused() -> None:
    events = toy_bsm_events(10, 5)
    table = torch.from_numpy(events)
    with pytest.raises(ParameterError, match="keys"):
        BsmTables({"signal": {"train": table}})
    with pytest.raises(ParameterError, match="at least one split"):
        BsmTables({"signal": {}, "background": {}})
    with pytest.raises(DataError, match=r"signal train of memory: .*NaN"):
        BsmTables({"signal": {"train": table * torch.nan}, "background": {}})
    data = BsmTables({"signal": {"train": table}, "background": {}})
    with pytest.raises(DataError, match="no split 'reference'"):
        data.events("signal", "reference")
    with pytest.raises(ParameterError, match="positive"):
        split_bsm_events(events, seed=1, fractions={"train": 0.0})
    with pytest.raises(ParameterError, match="at most 1"):
        split_bsm_events(events, seed=1, fractions={"train": 0.7, "reference": 0.7})
    with pytest.raises(DataError, match="too few for split 'validation'"):
        split_bsm_events(events, seed=1, fractions={"train": 0.9, "validation": 0.01})


@pytest.mark.skipif(not (SHIPPED / "manifest.json").is_file(), reason="data/higgs-bsm is not there")
def test_the_shipped_sample_is_whole_and_shows_the_masses() -> None:
    found = check_sample(SHIPPED)
    assert found.rows["background", "reference"] >= found.rows["background", "train"] >= 200_000
    sizes = [path.stat().st_size for path in SHIPPED.iterdir()]
    assert max(sizes) < 20e6
    assert sum(sizes) < 40e6
    data = BsmFolder(SHIPPED)
    top = data.events("background", "reference", ["m_jj", "m_jjj"]).double()
    assert abs(float(top[:, 0].median()) - 80.4) < 2.0
    assert abs(float(top[:, 1].median()) - 173.0) < 3.0
    light = data.events("signal", "reference", ["m_bb"]).double()[:, 0]
    counts = torch.histc(light, bins=30, min=80.0, max=170.0)
    assert 119.0 < 80.0 + 3.0 * (float(counts.argmax()) + 0.5) < 131.0
