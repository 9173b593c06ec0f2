"""The spin state of tau pairs from Z/gamma* and the settings of the generator."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbilib.errors import ParameterError, SbilibError
from sbilib.simulation.generator import (
    GenerationSettings,
    GenerationSummary,
    hadronic_tau_lines,
    lepton_hadron_fraction,
    start_pythia,
)
from sbilib.simulation.production import produce, right_handed_probability

SIN2 = 0.2312


def asymmetry(charge: float, isospin: float) -> float:
    vector, axial = isospin - 2.0 * charge * SIN2, isospin
    return 2.0 * vector * axial / (vector**2 + axial**2)


@pytest.mark.parametrize(("quark", "charge", "isospin"), [(1, -1 / 3, -0.5), (2, 2 / 3, 0.5)])
@pytest.mark.parametrize("cosine", [-0.9, -0.3, 0.0, 0.6, 1.0])
def test_the_polarization_at_the_pole_is_the_textbook_one(
    quark: int, charge: float, isospin: float, cosine: float
) -> None:
    """At the pole the photon adds less than 1 % (it is 90 degrees out of phase there)."""
    polarization = 2.0 * right_handed_probability(quark, 91.1876**2, cosine) - 1.0
    even, odd = 1.0 + cosine**2, 2.0 * cosine
    tau, initial = asymmetry(-1.0, -0.5), asymmetry(charge, isospin)
    expected = -(tau * even + initial * odd) / (even + initial * tau * odd)
    assert polarization == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("quark", "isospin", "right_hypercharge"), [(1, -0.5, -1 / 3), (2, 0.5, 2 / 3)])
def test_far_above_the_pole_the_symmetry_is_restored(
    quark: int, isospin: float, right_hypercharge: float
) -> None:
    """There W3 and B are massless, with charges T3 and Y/2: -1/2, -1/2 for the left-handed tau, 0 and -1 for
    the right-handed one, 1/6 for the left-handed quark.  This fixes the sign between photon and Z."""
    left = isospin * -0.5 / SIN2 + (1 / 6) * -0.5 / (1 - SIN2)
    right = right_hypercharge * -1.0 / (1 - SIN2)
    expected = right**2 / (left**2 + right**2)
    assert right_handed_probability(quark, 1e5**2, 1.0) == pytest.approx(expected, abs=1e-3)


@given(quark=st.integers(1, 6), cosine=st.floats(-1.0, 1.0))
def test_the_photon_is_blind_to_handedness(quark: int, cosine: float) -> None:
    assert right_handed_probability(quark, 1.0, cosine) == pytest.approx(0.5, abs=1e-3)


@given(quark=st.integers(1, 6), mass=st.floats(10.0, 2000.0), cosine=st.floats(-1.0, 1.0))
def test_the_probability_is_one_and_depends_on_the_type_of_the_quark_alone(
    quark: int, mass: float, cosine: float
) -> None:
    probability = right_handed_probability(quark, mass**2, cosine)
    assert 0.0 <= probability <= 1.0
    assert probability == right_handed_probability(1 + (quark + 1) % 2, mass**2, cosine)


def test_settings_refuse_what_makes_no_sense() -> None:
    with pytest.raises(ParameterError, match="z_mass_range"):
        GenerationSettings(z_mass_range=(100.0, 50.0))
    with pytest.raises(ParameterError, match="beam_energy"):
        GenerationSettings(beam_energy=-1.0)
    with pytest.raises(ParameterError, match="'signal', 'background'"):
        GenerationSettings().lines("top")


def test_the_selected_cross_section_is_the_product_of_its_factors() -> None:
    summary = GenerationSummary("signal", "fast", 1, 200, 50, 1.6, 0.1, 0.45, "8.317")
    assert summary.efficiency == 0.25
    assert summary.selected_cross_section == pytest.approx(1.6 * 0.45 * 0.25)


def test_a_setting_that_pythia_does_not_know_is_named() -> None:
    pytest.importorskip("pythia8mc")
    with pytest.raises(SbilibError, match="No:such = setting"):
        start_pythia(GenerationSettings(extra=("No:such = setting",)).lines("signal"), 1)


@pytest.fixture(scope="module")
def higgs_generator() -> object:
    pytest.importorskip("pythia8mc")
    return start_pythia((*GenerationSettings().lines("signal"), "HadronLevel:all = off"), 1)


def test_a_produced_pair_has_the_mass_of_the_boson(higgs_generator: object) -> None:
    """Photons that the taus radiate take some of it away, never add."""
    pairs = produce(higgs_generator, 50)
    total = pairs.negative + pairs.positive
    mass = np.sqrt(total[:, 0] ** 2 - (total[:, 1:] ** 2).sum(axis=1))
    assert (mass < 125.0 + 0.1).all()
    assert (np.abs(mass - 125.0) < 0.1).mean() > 0.5
    assert (pairs.quark == 21).all()
    for position, record in zip(pairs.positions, pairs.records, strict=True):
        assert [record[int(i)].id() for i in position] == [13, -13]


@pytest.mark.parametrize("hadronic", [-1, +1])
def test_channels_open_for_one_charge_each_and_keep_their_ratios(hadronic: int) -> None:
    """PDG: 35.2 % of taus decay to leptons, so 45.6 % of the pairs have one of each."""
    pytest.importorskip("pythia8mc")
    pythia = start_pythia(("Print:quiet = on", "ProcessLevel:all = off"), 1)
    assert lepton_hadron_fraction(pythia) == pytest.approx(0.456, abs=0.002)
    before = [pythia.particleData.particleDataEntryPtr(15).channel(i).bRatio() for i in range(30)]
    for line in hadronic_tau_lines(pythia, hadronic):
        assert pythia.readString(line)
    entry = pythia.particleData.particleDataEntryPtr(15)
    assert [entry.channel(i).bRatio() for i in range(30)] == before
    for index in range(entry.sizeChannels()):
        products = {abs(entry.channel(index).product(i)) for i in range(entry.channel(index).multiplicity())}
        open_for_particle_alone = entry.channel(index).onMode() == 2
        assert open_for_particle_alone == ((hadronic < 0) != bool(products & {11, 13}))
