"""Events from Pythia: the settings do what they must, and masses show what decayed."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from sbilib.errors import ParameterError, SbilibError
from sbilib.simulation.bsm_features import W_MASS
from sbilib.simulation.bsm_generator import (
    BsmGeneration,
    BsmSummary,
    _holds,
    _open_channels,
    _start,
    generate_bsm,
)
from sbilib.simulation.bsm_response import BsmResponse, simulate_bsm_detector
from sbilib.simulation.bsm_schema import bsm_columns
from sbilib.simulation.bsm_truth import BOTTOM, CHARM, BsmTruth

_N_EVENTS = 400


@cache
def generated(process: str) -> tuple[BsmTruth, BsmSummary]:
    """Preselected events, the same for all tests."""
    pytest.importorskip("pythia8mc")
    (part,) = generate_bsm(process, _N_EVENTS, 4, chunk=_N_EVENTS)
    return part


def test_the_settings_open_the_cascade_and_nothing_else() -> None:
    signal, background = (BsmGeneration().lines(process) for process in ("signal", "background"))
    for line in (
        "Higgs:useBSM = on",
        "HiggsH2:coup2HchgW = 1.",
        "35:m0 = 425.0",
        "35:mMin = 410.0",
        "35:mMax = 440.0",
        "37:m0 = 325.0",
        "37:doForceWidth = on",
        "25:onIfMatch = 5 -5",
    ):
        assert line in signal
        assert line not in background
    assert "PartonLevel:MPI = off" in signal
    assert "Beams:eCM = 8000.0" in background
    assert BsmGeneration(extra=("Beams:eCM = 13000.",)).lines("signal")[-1] == "Beams:eCM = 13000."


@pytest.mark.parametrize("process", ["signal", "background"])
def test_one_w_of_either_charge_decays_to_leptons_and_the_other_to_quarks(process: str) -> None:
    pytest.importorskip("pythia8mc")
    pythia = _start((*BsmGeneration().lines(process), "PartonLevel:all = off"), 3)
    for positive_leptonic in (True, False):
        _open_channels(pythia, positive_leptonic)
        for _ in range(20):
            assert pythia.next()
            record = pythia.process
            bosons = [i for i in range(record.size()) if record[i].idAbs() == 24]
            decays = {record[i].id(): record[record[i].daughter1()].idAbs() for i in bosons}
            leptonic = 24 if positive_leptonic else -24
            assert decays[leptonic] in (11, 12, 13, 14)
            assert decays[-leptonic] <= 5


def test_the_signal_has_the_chain_of_masses() -> None:
    pytest.importorskip("pythia8mc")
    pythia = _start((*BsmGeneration().lines("signal"), "PartonLevel:all = off"), 3)
    for _ in range(50):
        assert pythia.next()
        masses = {
            particle.idAbs(): particle.m()
            for particle in (pythia.process[i] for i in range(pythia.process.size()))
        }
        assert 410.0 <= masses[35] <= 440.0
        assert abs(masses[37] - 325.0) < 50.0
        assert abs(masses[25] - 125.0) < 1.0
        assert masses[5] > 4.0


@pytest.mark.parametrize("process", ["signal", "background"])
def test_particle_jets_and_leptons_are_as_asked_for(process: str) -> None:
    truth, summary = generated(process)
    assert len(truth) == summary.n_selected == _N_EVENTS < summary.n_produced < 1.3 * _N_EVENTS
    assert (truth.lepton[:, 0] > 12.0).all()
    assert (np.abs(truth.lepton[:, 1]) < 2.6).all()
    assert 0.4 < truth.lepton_is_muon.mean() < 0.6
    pt = truth.jets[..., 0]
    assert (np.diff(pt, axis=1) <= 0).all()
    assert (pt[pt > 0] > 6.0).all()
    # Each of two bottom quarks leaves a jet in nine of ten events, and rarely a gluon makes two more.
    n_bottom = ((truth.flavor == BOTTOM) & (pt > 15.0)).sum(axis=1)
    assert 0.65 < (n_bottom == 2).mean() < 0.85
    assert (n_bottom > 2).mean() < 0.06
    # The hadronic W makes a charm quark in half of the events.
    n_charm = ((truth.flavor == CHARM) & (pt > 15.0)).sum(axis=1)
    assert 0.35 < (n_charm > 0).mean() < 0.6
    # No jet is the lepton: none has its direction.
    turn = np.abs(np.angle(np.exp(1j * (truth.jets[..., 2] - truth.lepton[:, 2:3]))))
    on_top = (np.hypot(truth.jets[..., 1] - truth.lepton[:, 1:2], turn) < 0.05) & (
        pt > 0.8 * truth.lepton[:, :1]
    )
    assert on_top.any(axis=1).mean() < 0.02


def test_cross_sections_hold_the_branching_ratios_of_both_bosons() -> None:
    # The order of 158 pb of top pairs at leading order times 2 * 0.216 * 0.676.
    assert 38.0 < generated("background")[1].cross_section < 54.0
    assert generated("signal")[1].cross_section > 0.0


def test_masses_show_what_decayed() -> None:
    columns = dict(zip(("m_jj", "m_jjj", "m_bb", "m_wbb", "m_wwbb"), range(5), strict=True))
    found = {}
    for process in ("signal", "background"):
        # Several times through the detector, as masses of the same jets are nearly as good as new ones.
        selected = [
            simulate_bsm_detector(generated(process)[0], BsmResponse(), np.random.default_rng(seed)).events
            for seed in range(4)
        ]
        found[process] = np.concatenate(selected)[:, bsm_columns(columns)]
    background, signal = found["background"].T, found["signal"].T
    assert abs(np.median(background[columns["m_jj"]]) - W_MASS) < 4.0
    assert abs(np.median(background[columns["m_jjj"]]) - 173.0) < 8.0
    light = signal[columns["m_bb"]]
    assert abs(np.median(light[np.abs(light - 125.0) < 40.0]) - 125.0) < 7.0
    # Three in five events of signal are near the mass of the light boson, one in five of background.
    near = {
        process: np.mean(np.abs(part[:, columns["m_bb"]] - 125.0) < 25.0) for process, part in found.items()
    }
    assert near["signal"] > 0.4 > 0.3 > near["background"]
    assert abs(np.median(signal[columns["m_wwbb"]]) - 425.0) < 35.0


def test_the_seed_fixes_the_events_and_parts_do_not_matter() -> None:
    pytest.importorskip("pythia8mc")
    whole = [truth for truth, _ in generate_bsm("background", 20, 9, chunk=20)]
    parts = [truth for truth, _ in generate_bsm("background", 20, 9, chunk=7)]
    assert [len(part) for part in parts] == [7, 7, 6]
    np.testing.assert_array_equal(whole[0].jets, BsmTruth.concatenate(parts).jets)
    other = next(generate_bsm("background", 20, 10, chunk=20))[0]
    assert not np.array_equal(whole[0].jets, other.jets)


def test_hadrons_are_known_by_their_code() -> None:
    bottom, charm = (511, 521, 531, 541, 5122, 5332, 553, 10511), (411, 421, 431, 4122, 443, 10411)
    assert all(_holds(code, BOTTOM) and not _holds(code, CHARM) for code in bottom)
    assert all(_holds(code, CHARM) and not _holds(code, BOTTOM) for code in charm)
    # Quarks, leptons, light hadrons, pairs of quarks, and codes of other particles.
    for code in (4, 5, 11, 24, 211, 3122, 4203, 5101, 1000005, 9900441):
        assert not _holds(code, BOTTOM)
        assert not _holds(code, CHARM)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ParameterError, match="charged_mass"):
        BsmGeneration(charged_mass=180.0)
    with pytest.raises(ParameterError, match="heavy_mass"):
        BsmGeneration(heavy_mass=400.0)
    with pytest.raises(ParameterError, match="jet_radius"):
        BsmGeneration(jet_radius=0.0)
    with pytest.raises(ParameterError, match="process"):
        BsmGeneration().lines("data")
    with pytest.raises(ParameterError, match="n_selected"):
        next(generate_bsm("signal", -1, 1))
    pytest.importorskip("pythia8mc")
    with pytest.raises(SbilibError, match="refuses the setting 'No:such = 1'"):
        next(generate_bsm("signal", 1, 1, BsmGeneration(extra=("No:such = 1",))))
