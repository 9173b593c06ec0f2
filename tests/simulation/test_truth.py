"""Particle-level events: shapes, selections, and files of them."""

from pathlib import Path

import numpy as np
import pytest

from sbilib.errors import DataError
from sbilib.simulation.truth import TruthEvents


def made_events(n_events: int, seed: int = 0) -> TruthEvents:
    generator = np.random.default_rng(seed)
    return TruthEvents(
        lepton=generator.uniform(1.0, 60.0, (n_events, 3)) * [1.0, 0.05, 0.05],
        lepton_is_muon=generator.random(n_events) < 0.5,
        tau=generator.uniform(1.0, 60.0, (n_events, 4)) * [1.0, 0.05, 0.05, 0.02],
        n_charged=np.ones(n_events),
        invisible=generator.normal(size=(n_events, 2)),
        jets=np.zeros((n_events, 8, 4)),
        recoil=generator.normal(size=(n_events, 2)),
    )


def test_arrays_are_stored_in_the_promised_types() -> None:
    events = made_events(3)
    assert events.lepton.dtype == np.float32
    assert events.lepton_is_muon.dtype == np.bool_
    assert events.n_charged.dtype == np.int8


def test_parts_of_a_selection_put_together_are_all_events() -> None:
    events = made_events(50)
    mask = events.lepton[:, 0] > 30.0
    both = TruthEvents.concatenate([events.select(mask), events.select(~mask)])
    assert 0 < mask.sum() < 50
    assert len(both) == 50
    np.testing.assert_array_equal(np.sort(both.tau[:, 0]), np.sort(events.tau[:, 0]))
    np.testing.assert_array_equal(both.recoil[: mask.sum()], events.recoil[mask])


def test_nothing_put_together_is_nothing() -> None:
    assert len(TruthEvents.concatenate([])) == 0


def test_the_preselection_cuts_lepton_and_tau() -> None:
    events = made_events(200)
    kept = events.preselected(pt=20.0, eta=2.0)
    for momentum in (events.lepton, events.tau):
        assert (momentum[kept, 0] > 20.0).all()
        assert (np.abs(momentum[kept, 1]) < 2.0).all()
    lost = events.select(~kept)
    passes = [(m[:, 0] > 20.0) & (np.abs(m[:, 1]) < 2.0) for m in (lost.lepton, lost.tau)]
    assert not (passes[0] & passes[1]).any()


def test_a_file_gives_back_the_same_events(tmp_path: Path) -> None:
    events = made_events(20)
    events.save(tmp_path / "events.npz")
    back = TruthEvents.load(tmp_path / "events.npz")
    for name in ("lepton", "lepton_is_muon", "tau", "n_charged", "invisible", "jets", "recoil"):
        np.testing.assert_array_equal(getattr(back, name), getattr(events, name))


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 truncated"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "events.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="generate it again"):
        TruthEvents.load(path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.npz"
    made_events(20).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="generate it again"):
        TruthEvents.load(path)


def test_wrong_shapes_and_nan_are_refused() -> None:
    events = made_events(3)
    arrays = {name: getattr(events, name) for name in TruthEvents.SHAPES}
    with pytest.raises(DataError, match=r"tau must have shape \(3, 4\)"):
        TruthEvents(**{**arrays, "tau": events.tau[:2]})
    with pytest.raises(DataError, match="recoil has NaN"):
        TruthEvents(**{**arrays, "recoil": np.full((3, 2), np.nan)})
