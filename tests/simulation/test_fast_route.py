"""The fast route: kinematics of boosts, helicity correlations, seeds, and agreement with plain Pythia."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from sbilib.errors import ParameterError
from sbilib.simulation.fast_route import boost_decays, decay_pairs, generate_fast
from sbilib.simulation.generator import GenerationSummary
from sbilib.simulation.plain_route import generate_plain
from sbilib.simulation.production import ProducedPairs
from sbilib.simulation.tau_decays import TAU_MASS, DecayLibrary, Decays, build_library
from sbilib.simulation.truth import TruthEvents

momenta = st.tuples(*3 * [st.floats(-300.0, 300.0)])


def on_shell(momentum: tuple[float, ...] | np.ndarray, mass: float = TAU_MASS) -> np.ndarray:
    space = np.atleast_2d(momentum)
    return np.concatenate([np.sqrt(mass**2 + (space**2).sum(axis=1, keepdims=True)), space], axis=1)


def mass_squared(vectors: np.ndarray) -> np.ndarray:
    return vectors[:, 0] ** 2 - (vectors[:, 1:] ** 2).sum(axis=1)


def back_to_back(n_pairs: int, process: str) -> ProducedPairs:
    """Pairs at rest along random directions, from down quarks at the Z pole with cosine zero."""
    direction = np.random.default_rng(3).normal(size=(n_pairs, 3))
    direction *= 45.0 / np.linalg.norm(direction, axis=1, keepdims=True)
    return ProducedPairs(
        negative=on_shell(direction),
        positive=on_shell(-direction),
        quark=np.ones(n_pairs, dtype=np.int64),
        mass_squared=np.full(n_pairs, 91.19**2),
        cosine=np.zeros(n_pairs),
        records=[],
        positions=np.zeros((n_pairs, 2), dtype=np.int64),
    )


def aligned_library() -> DecayLibrary:
    """Every visible particle flies along the spin, so its energy tells the helicity."""
    decay = Decays(np.array([0.88]), np.array([0.8799]), np.array([0.0]), np.array([1], dtype=np.int8))
    return DecayLibrary(decay, decay)


@given(tau=momenta, partner=momenta, rest=st.tuples(*3 * [st.floats(-0.5, 0.5)]))
def test_visible_and_invisible_parts_add_up_to_the_tau(
    tau: tuple[float, ...], partner: tuple[float, ...], rest: tuple[float, ...]
) -> None:
    if np.linalg.norm(np.subtract(tau, partner)) < 1.0:
        partner = (tau[0] + 1.0, tau[1], tau[2])
    visible = on_shell(rest, 0.14)
    invisible = np.array([[TAU_MASS, 0.0, 0.0, 0.0]]) - visible
    lab = [boost_decays(part, on_shell(tau), on_shell(partner)) for part in (visible, invisible)]
    np.testing.assert_allclose(lab[0] + lab[1], on_shell(tau), rtol=1e-8, atol=1e-7)
    np.testing.assert_allclose(mass_squared(lab[0]), 0.14**2, atol=1e-8 * lab[0][0, 0] ** 2)


def test_the_third_axis_is_the_flight_in_the_frame_of_the_pair() -> None:
    """For a pair seen in motion: boost the pair along x, and the result is the boosted decay."""
    tau, partner = on_shell((0.0, 30.0, 5.0)), on_shell((0.0, -30.0, -5.0))
    gamma, beta_gamma = 1.5, np.sqrt(1.25)

    def moved(v: np.ndarray) -> np.ndarray:
        energy = gamma * v[:, 0] + beta_gamma * v[:, 1]
        along = gamma * v[:, 1] + beta_gamma * v[:, 0]
        return np.stack([energy, along, v[:, 2], v[:, 3]], axis=1)

    along = on_shell((0.0, 0.0, 0.6), 0.14)
    direct = moved(boost_decays(along, tau, partner))
    np.testing.assert_allclose(boost_decays(along, moved(tau), moved(partner)), direct, rtol=1e-10)


@pytest.mark.parametrize(("process", "same"), [("signal", False), ("background", True)])
def test_helicities_are_opposite_for_higgs_and_equal_for_z_in_terms_of_the_library(
    process: str, same: bool
) -> None:
    pairs = back_to_back(500, process)
    events = decay_pairs(pairs, process, aligned_library(), np.random.default_rng(1))
    energies = [m[:, 0] * np.cosh(m[:, 1]) for m in (events.lepton, events.tau)]
    forward = [energy > 22.0 for energy in energies]
    assert ((forward[0] == forward[1]) == same).all()


def test_the_negative_tau_of_a_z_is_polarized_as_its_couplings_say() -> None:
    """At cosine zero the polarization is -A_tau = -0.147; 4e4 pairs, 5 standard deviations of 0.005."""
    events = decay_pairs(
        back_to_back(40_000, "background"), "background", aligned_library(), np.random.default_rng(1)
    )
    forward = events.lepton[:, 0] * np.cosh(events.lepton[:, 1]) > 22.0
    assert 2 * forward.mean() - 1 == pytest.approx(-0.147, abs=0.025)


def test_a_higgs_prefers_no_handedness() -> None:
    events = decay_pairs(
        back_to_back(40_000, "signal"), "signal", aligned_library(), np.random.default_rng(1)
    )
    forward = events.lepton[:, 0] * np.cosh(events.lepton[:, 1]) > 22.0
    assert 2 * forward.mean() - 1 == pytest.approx(0.0, abs=0.025)


@pytest.fixture(scope="module")
def library() -> DecayLibrary:
    pytest.importorskip("pythia8mc")
    return build_library(2000, 1)


@pytest.fixture(scope="module")
def fast_run(library: DecayLibrary) -> tuple[TruthEvents, GenerationSummary]:
    parts = list(generate_fast("signal", 400, 1, library=library, chunk=150))
    assert [len(events) for events, _ in parts] == [150, 150, 100]
    return TruthEvents.concatenate([events for events, _ in parts]), parts[-1][1]


@pytest.fixture(scope="module")
def fast_higgs(fast_run: tuple[TruthEvents, GenerationSummary]) -> TruthEvents:
    return fast_run[0]


@pytest.fixture(scope="module")
def plain_run() -> tuple[TruthEvents, GenerationSummary]:
    pytest.importorskip("pythia8mc")
    (run,) = generate_plain("signal", 400, 7)
    return run


def test_the_seed_fixes_the_events(library: DecayLibrary, fast_higgs: TruthEvents) -> None:
    (again, _), (other, _) = (
        next(generate_fast("signal", 400, seed, library=library, chunk=150)) for seed in (1, 2)
    )
    np.testing.assert_array_equal(again.tau, fast_higgs.tau[:150])
    np.testing.assert_array_equal(again.jets, fast_higgs.jets[:150])
    assert not np.isin(other.tau[:, 0], fast_higgs.tau[:, 0]).any()


def test_events_are_balanced_and_preselected(fast_higgs: TruthEvents) -> None:
    assert len(fast_higgs) == 400
    assert fast_higgs.preselected().all()
    total = fast_higgs.invisible + fast_higgs.recoil
    for momentum in (fast_higgs.lepton, fast_higgs.tau):
        azimuth = momentum[:, 2:3]
        total = total + momentum[:, :1] * np.concatenate([np.cos(azimuth), np.sin(azimuth)], axis=1)
    assert np.abs(total).max() < 1e-3
    assert (np.diff(fast_higgs.jets[:, :, 0], axis=1) <= 0).all()


def visible_features(events: TruthEvents) -> dict[str, np.ndarray]:
    (lepton_pt, lepton_eta, lepton_phi), (tau_pt, tau_eta, tau_phi, tau_mass) = events.lepton.T, events.tau.T
    turn = np.cosh(lepton_eta - tau_eta) - np.cos(lepton_phi - tau_phi)
    return {
        "lepton pt": lepton_pt,
        "tau pt": tau_pt,
        "tau mass": tau_mass,
        "visible mass": np.sqrt(2 * lepton_pt * tau_pt * turn),
        "missing pt": np.hypot(*events.invisible.T),
        "leading jet pt": events.jets[:, 0, 0],
        "number of jets": (events.jets[:, :, 0] > 0).sum(axis=1),
    }


def test_plain_pythia_agrees(
    fast_higgs: TruthEvents, plain_run: tuple[TruthEvents, GenerationSummary]
) -> None:
    """Seven two-sample tests of 400 events each at 1e-4: false alarm below 7e-4 (large samples: the book)."""
    plain, _ = plain_run
    assert plain.preselected().all()
    ours, expected = visible_features(fast_higgs), visible_features(plain)
    for name, values in expected.items():
        assert ks_2samp(values, ours[name]).pvalue > 1e-4, name


def test_the_efficiencies_of_both_routes_agree(
    fast_run: tuple[TruthEvents, GenerationSummary], plain_run: tuple[TruthEvents, GenerationSummary]
) -> None:
    """400 selected events each: the ratio has an error of 6 %, and 5 of them are allowed."""
    fast, plain = fast_run[1], plain_run[1]
    assert fast.efficiency == pytest.approx(plain.efficiency, rel=0.3)
    assert fast.cross_section == pytest.approx(plain.cross_section, rel=0.2)
    assert (fast.route, plain.route) == ("fast", "plain")


def test_an_unknown_process_is_refused(library: DecayLibrary) -> None:
    with pytest.raises(ParameterError, match="'signal', 'background'"):
        next(generate_fast("top", 1, 1, library=library))
