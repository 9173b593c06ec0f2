"""The study of ensembles, on fake members that are the exact toy turned by known angles.

A member that takes angle z for z + a finds its best fit at z - a, whatever the events: all that follows is
known by hand.  Statistical tests fix the seed and state their false-alarm rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from sbilib.components import LogComponents
from sbilib.errors import DataError, ParameterError
from sbilib.likelihood import ScanGrid, fit_toys, likelihood_overlaps, scan_nll
from sbilib.problems import GaussianToy, make_toys
from sbilib.studies.coverage import seeded_generator
from sbilib.studies.ensemble_errors import (
    decompose_members,
    ensemble_coverage,
    ensemble_overlaps,
    ensemble_shifts,
    fit_decomposition,
    mean_square_shifts,
    member_spread,
    shifted_coverage,
    widen_intervals,
)
from sbilib.studies.ensembles import SubEnsemble, disjoint_sub_ensembles, fit_ensembles

LARGE = GaussianToy(2.0)
ANGLES = (0.03, 0.01, -0.02, 0.04)
SIGMA_Z = 0.0165  # about, for 1000 events of the large-distance toy


@dataclass(frozen=True)
class Turned:
    """The exact toy, asked for an angle that is off by ``angle`` rad."""

    toy: GaussianToy
    angle: float

    def log_components(self, x: Tensor, nuisance: Tensor) -> LogComponents:
        return self.toy.log_components(x, nuisance + self.angle)


class Broken:
    """A member whose training diverged."""

    def log_components(self, x: Tensor, nuisance: Tensor) -> LogComponents:
        values = torch.full((len(x), len(nuisance)), math.nan)
        return LogComponents(values, values)


class TurnedModule(torch.nn.Module):
    """A turned toy whose angle is a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.angle = torch.nn.Parameter(torch.tensor(0.0, dtype=torch.float64))

    def log_components(self, x: Tensor, nuisance: Tensor) -> LogComponents:
        return LARGE.log_components(x, nuisance + self.angle.detach())


class Wavy:
    """The exact toy with a ripple on the signal."""

    def log_components(self, x: Tensor, nuisance: Tensor) -> LogComponents:
        exact = LARGE.log_components(x, nuisance)
        return LogComponents(exact.signal + 0.3 * torch.sin(3 * x[:, :1]), exact.background)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SBILIB_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SBILIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        members = [Turned(LARGE, angle) for angle in ANGLES]
        return fit_ensembles(
            LARGE, members, disjoint_sub_ensembles(4, [1, 2, 4]), n_toys=6, n_overlaps=2, seed=3
        )


def made_table(shifts: np.ndarray, n_toys: int, seed: int) -> pd.DataFrame:
    """Ideal fits: exact estimates normal around zero, members moved by ``shifts`` (members, points)."""
    rng = np.random.default_rng(seed)
    best = rng.normal(size=(shifts.shape[1], n_toys))
    values = np.concatenate((best[None], best + shifts[:, :, None]))
    row, point, toy = (index.ravel() for index in np.indices(values.shape))
    # All points have the truth zero; they differ by a tiny amount so that they stay apart.
    columns = {"mu": 1e-9 * point, "z": 0.0 * point, "toy": toy, "number": np.maximum(row - 1, 0)}
    columns |= {"kind": np.where(row == 0, "exact", "single"), "size": (row > 0).astype(int)}
    for name in ("mu", "z"):
        columns |= {f"{name}_hat": values.ravel()}
        columns |= {f"{name}_lower": values.ravel() - 1.0, f"{name}_upper": values.ravel() + 1.0}
    return pd.DataFrame(columns)


def test_disjoint_sub_ensembles_share_no_member_and_leave_none_out():
    subs = disjoint_sub_ensembles(16, [1, 2, 4, 8, 16])
    assert len(subs) == 16 + 2 * (8 + 4 + 2 + 1)
    for kind, size in {(sub.kind, len(sub.members)) for sub in subs}:
        used = [m for sub in subs if (sub.kind, len(sub.members)) == (kind, size) for m in sub.members]
        assert sorted(used) == list(range(16))
    assert [s.kind for s in disjoint_sub_ensembles(3, [1, 2], at_most=1)] == [
        "single",
        "mean_density",
        "mean_log_ratio",
    ]


def test_fits_are_those_of_the_likelihood_on_the_same_toys():
    members = [Turned(LARGE, angle) for angle in ANGLES[:2]]
    table = fit_ensembles(
        LARGE, members, disjoint_sub_ensembles(2, [1]), n_toys=3, n_events=400, n_nodes=21, seed=5
    )
    chosen = table[(table["mu"] == 0.1) & np.isclose(table["z"], 0.25 * math.pi)]
    events = make_toys(
        LARGE,
        signal_ratio=0.1,
        nuisance=0.25 * math.pi,
        n_toys=50,
        n_events=400,
        generator=seeded_generator(5, 400, 1, 0),
    )[:3]
    nodes = torch.linspace(*LARGE.scan_range, 21, dtype=torch.float64)
    for kind, number, densities in (("exact", 0, LARGE), ("single", 1, members[1])):
        fits = fit_toys(densities, events, nodes)
        rows = chosen[(chosen["kind"] == kind) & (chosen["number"] == number)]
        assert np.allclose(rows["mu_hat"], fits.signal_ratio, atol=1e-5)
        assert np.allclose(rows["z_upper"], fits.nuisance_interval.upper, atol=1e-5)


def test_a_turned_member_is_off_by_its_angle(turned):
    shifts = ensemble_shifts(turned).set_index("parameter")
    for (number, kind), rows in shifts.loc["z"].groupby(["number", "kind"]):
        if kind == "single":
            assert np.allclose(rows["shift"] * rows["sigma"], -ANGLES[number], atol=1e-4)
    single = shifts.loc["mu"].query("kind == 'single'")
    assert np.allclose(single["shift"], 0.0, atol=3e-3)
    assert shifts.loc["z", "sigma"].between(0.9 * SIGMA_Z, 1.1 * SIGMA_Z).all()


def test_an_ensemble_is_off_by_the_mean_angle(turned):
    """To first order for both kinds; the logarithm's mean is a turned toy of a slightly smaller radius."""
    shifts = ensemble_shifts(turned).query("parameter == 'z' and size > 1")
    for (kind, size, number), rows in shifts.groupby(["kind", "size", "number"]):
        expected = -np.mean(ANGLES[number * size : (number + 1) * size])
        tolerance = 1e-4 if kind == "mean_log_ratio" else 1e-3
        assert np.allclose(rows["shift"] * rows["sigma"], expected, atol=tolerance), (kind, size, number)


def test_decomposition_of_turned_members_is_that_of_their_angles(turned):
    shifts = ensemble_shifts(turned)
    found = decompose_members(shifts, "z")
    scale = (1 / shifts.query("parameter == 'z' and kind == 'single' and number == 0")["sigma"] ** 2).mean()
    scatter = np.var(ANGLES, ddof=1)
    assert found.scatter == pytest.approx(scale * scatter, rel=0.02)
    assert found.common == pytest.approx(scale * (np.mean(ANGLES) ** 2 - scatter / 4), rel=0.05)
    squares = mean_square_shifts(shifts).query("parameter == 'z' and kind != 'mean_density'")
    by_size = squares.set_index("size")
    assert by_size.loc[1, "rms"] == pytest.approx(math.sqrt(scale * np.mean(np.square(ANGLES))), rel=0.01)
    assert by_size.loc[4, "rms"] == pytest.approx(math.sqrt(scale) * np.mean(ANGLES), rel=0.01)
    assert by_size["count"].to_dict() == {1: 4, 2: 2, 4: 1}


def test_spread_between_members_is_that_of_their_angles(turned):
    spread = member_spread(ensemble_shifts(turned))
    assert len(spread) == 9
    assert np.allclose(spread["z"], np.std(ANGLES, ddof=1), rtol=2e-3)
    assert (spread["mu"] < 1e-4).all()


def test_overlaps_are_those_of_the_full_grid(turned):
    """Small grids around the fits and single precision change an overlap by less than 0.003."""
    nodes_grid = ScanGrid.uniform(nuisance_range=LARGE.scan_range)
    member = Turned(LARGE, ANGLES[0])
    for number, (ratio, angle) in ((0, (0.1, 0.15)), (8, (0.3, 0.35))):
        events = make_toys(
            LARGE,
            signal_ratio=ratio,
            nuisance=angle * math.pi,
            n_toys=20,
            n_events=1000,
            generator=seeded_generator(3, 1000, number, 0),
        )
        rows = turned[(turned["mu"] == ratio) & np.isclose(turned["z"], angle * math.pi)]
        for toy in range(2):
            scans = [scan_nll(d, events[toy], nodes_grid, restrict=True) for d in (member, LARGE)]
            expected = [float(value) for value in likelihood_overlaps(*scans)]
            row = rows.query("toy == @toy and kind == 'single' and number == 0").iloc[0]
            found = row[["mu_overlap", "z_overlap", "total_overlap"]].tolist()
            assert found == pytest.approx(expected, abs=3e-3)
    exact = turned[turned["kind"] == "exact"]["total_overlap"].dropna()
    assert len(exact) == 18
    assert np.allclose(exact, 1.0)


def test_overlap_of_a_shift_is_that_of_two_normal_curves(turned):
    """2 Phi(-shift / 2 sigma), {eq}`eq-overlap-shift`, for profiles that are nearly parabolas."""
    overlaps = ensemble_overlaps(turned).query("kind == 'single'").set_index("number")
    sigma = ensemble_shifts(turned).query("parameter == 'z'")["sigma"].mean()
    for number, angle in enumerate(ANGLES):
        expected = math.erfc(abs(angle) / sigma / 2 / math.sqrt(2))
        assert overlaps.loc[number, "z_overlap"] == pytest.approx(expected, abs=0.02)
        assert overlaps.loc[number, "mu_overlap"] > 0.99


def test_the_curve_of_mean_squares_gives_back_its_two_numbers():
    sizes = [1, 2, 4, 8, 16]
    found = fit_decomposition(sizes, [0.09 + 0.5 / size for size in sizes])
    assert (found.common, found.scatter) == (pytest.approx(0.09), pytest.approx(0.5))
    assert found.rms(4) == pytest.approx(math.sqrt(0.09 + 0.125))
    assert fit_decomposition([1, 2], [0.1, 0.0]).rms(100) == 0.0


def test_members_alone_give_common_error_and_scatter():
    """16 members, 200 points: B = 0.5 and S = 0.3 to four jackknife errors (false alarm 0.01%)."""
    rng = np.random.default_rng(7)
    shifts = 0.5 + 0.3 * rng.normal(size=(16, 200))
    found = decompose_members(ensemble_shifts(made_table(shifts, 2, 1)), "mu")
    assert abs(found.common - 0.25) < 4 * max(found.common_error, 0.01)
    assert abs(found.scatter - 0.09) < 4 * found.scatter_error
    assert 0.001 < found.scatter_error < 0.02


def test_decomposition_is_unbiased_without_common_error():
    """300 repeats of 6 members at one point; the mean of B^2 is zero within 4 errors (false alarm 0.01%)."""
    rng = np.random.default_rng(8)
    shifts = ensemble_shifts(made_table(rng.normal(size=(6, 300)), 2, 1))
    single = (
        shifts[shifts["parameter"] == "mu"].pivot(index="number", columns="mu", values="shift").to_numpy()
    )
    by_hand = single.mean(axis=0) ** 2 - single.var(axis=0, ddof=1) / 6
    found = decompose_members(shifts, "mu")
    assert found.common == pytest.approx(by_hand.mean(), abs=1e-9)
    assert abs(found.common) < 4 * by_hand.std() / math.sqrt(300)


@pytest.mark.parametrize("shift", [0.0, 0.7, 1.5])
def test_coverage_of_shifted_and_widened_intervals(shift):
    """20 000 ideal toys; false alarm of the six comparisons together 0.1% (3.8 binomial errors)."""
    table = made_table(np.full((2, 1), shift), 20_000, 11)
    spread = pd.DataFrame({"mu": [shift], "z": [shift]}, index=pd.MultiIndex.from_tuples([(0.0, 0.0)]))
    spread.index.names = ["mu", "z"]
    for widened, width in (
        (table, 1.0),
        (widen_intervals(table, spread, factor=2.0), math.hypot(1, 2 * shift)),
    ):
        rows = ensemble_coverage(widened).query("parameter == 'mu'").set_index("kind")
        expected = shifted_coverage(shift, widening=width)
        assert abs(rows.loc["single", "coverage"] - expected) < 3.8 * rows.loc["single", "error"]
        assert abs(rows.loc["exact", "coverage"] - shifted_coverage(0.0)) < 3.8 * rows.loc["exact", "error"]
        assert rows.loc["single", "n_toys"] == 20_000
        assert rows.loc["single", "difference"] == pytest.approx(
            rows.loc["single", "coverage"] - rows.loc["exact", "coverage"]
        )


def test_widening_by_the_spread_restores_the_coverage_of_random_members():
    """300 members without common error: 68.3% on average although each is shifted (false alarm 0.1%)."""
    rng = np.random.default_rng(12)
    table = made_table(1.2 * rng.normal(size=(300, 3)), 300, 13)
    spread = member_spread(ensemble_shifts(table))
    before, after = (
        ensemble_coverage(t).query("parameter == 'mu' and kind == 'single'")["coverage"].item()
        for t in (table, widen_intervals(table, spread))
    )
    # Estimates scatter with variance 1 + 1.2^2; 900 toys and 900 shifts make an error of about 2%.
    assert before == pytest.approx(math.erf(1 / math.hypot(1, 1.2) / math.sqrt(2)), abs=0.05)
    assert after == pytest.approx(0.683, abs=0.05)


def test_widening_leaves_the_exact_likelihood_and_open_edges_alone(turned):
    spread = member_spread(ensemble_shifts(turned)) * 0 + 3.0
    table = turned.copy()
    table.loc[1, "mu_upper"] = math.inf
    wide = widen_intervals(table, spread)
    exact = table["kind"] == "exact"
    pd.testing.assert_frame_equal(wide[exact], table[exact])
    learned = ~exact & np.isfinite(table["mu_upper"])
    half = (table["mu_upper"] - table["mu_hat"])[learned]
    assert np.allclose((wide["mu_upper"] - wide["mu_hat"])[learned], np.sqrt(half**2 + 9.0))
    assert wide.loc[1, "mu_upper"] == math.inf


def test_an_interval_that_leaves_the_range_counts_as_open():
    table = fit_ensembles(
        GaussianToy(0.5), [GaussianToy(0.5)], disjoint_sub_ensembles(1, [1]), n_toys=5, n_events=100, seed=1
    )
    assert np.isinf(table["z_lower"]).any()
    assert np.isinf(table["z_upper"]).any()
    both = table["kind"] == "exact"
    assert np.array_equal(
        table.loc[both, "z_lower"].to_numpy() == -np.inf, table.loc[~both, "z_lower"].to_numpy() == -np.inf
    )


def test_toys_do_not_depend_on_their_number_nor_on_the_members(cache):
    facts = {"n_events": 200, "seed": 2}
    subs = disjoint_sub_ensembles(1, [1])
    few = fit_ensembles(LARGE, [LARGE], subs, n_toys=2, **facts)
    many = fit_ensembles(LARGE, [Turned(LARGE, 0.1)], subs, n_toys=3, **facts)
    columns = ["mu", "z", "toy", "mu_hat", "z_hat"]
    rows = many.query("kind == 'exact' and toy < 2")[columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(few.query("kind == 'exact'")[columns].reset_index(drop=True), rows)
    files = len(list(cache.glob("ensembles-*.parquet")))
    assert files == 18
    pd.testing.assert_frame_equal(few, fit_ensembles(LARGE, [LARGE], subs, n_toys=2, **facts))
    assert len(list(cache.glob("ensembles-*.parquet"))) == files


def test_tables_of_other_weights_are_not_taken_for_these():
    member, subs, facts = TurnedModule(), disjoint_sub_ensembles(1, [1]), {"n_toys": 1, "seed": 2}
    first = fit_ensembles(LARGE, [member], subs, **facts)
    with torch.no_grad():
        member.angle += 0.05
    second = fit_ensembles(LARGE, [member], subs, **facts)
    moved = (first["z_hat"] - second["z_hat"])[first["kind"] == "single"]
    assert np.allclose(moved, 0.05, atol=2e-4)


def test_tables_over_features_and_direct_evaluation_agree():
    subs, facts = disjoint_sub_ensembles(1, [1]), {"n_toys": 2, "seed": 2}
    tabulated, direct = (fit_ensembles(LARGE, [Wavy()], subs, spacing=h, **facts) for h in (0.1, 0.0))
    moved = (direct["mu_hat"] - fit_ensembles(LARGE, [LARGE], subs, **facts)["mu_hat"]).abs().max()
    assert moved > 1e-3
    assert np.allclose(tabulated["mu_hat"], direct["mu_hat"], atol=1e-2 * moved)


def test_bad_input_is_refused(turned):
    subs = disjoint_sub_ensembles(1, [1])
    with pytest.raises(ParameterError, match="number of members must be an integer of at least 1"):
        fit_ensembles(LARGE, [], subs, n_toys=1, seed=1)
    with pytest.raises(ParameterError, match="no sub-ensemble"):
        fit_ensembles(LARGE, [LARGE], [], n_toys=1, seed=1)
    with pytest.raises(ParameterError, match="numbers from 0 to 0"):
        fit_ensembles(LARGE, [LARGE], [SubEnsemble("single", (1,))], n_toys=1, seed=1)
    with pytest.raises(ParameterError, match="only a sub-ensemble of one member"):
        fit_ensembles(LARGE, [LARGE], [SubEnsemble("mean_density", (0,))], n_toys=1, seed=1)
    with pytest.raises(ParameterError, match="kind must be one of"):
        fit_ensembles(LARGE, [LARGE], [SubEnsemble("median", (0,))], n_toys=1, seed=1)
    with pytest.raises(ParameterError, match="n_toys"):
        fit_ensembles(LARGE, [LARGE], subs, n_toys=0, seed=1)
    with pytest.raises(DataError, match="member 0 returns"):
        fit_ensembles(LARGE, [Broken()], subs, n_toys=1, n_events=50, seed=1)
    for sizes in ([], [1, 1], [5]):
        with pytest.raises(ParameterError, match="different numbers from 1 to 4"):
            disjoint_sub_ensembles(4, sizes)
    without = turned.assign(total_overlap=math.nan)
    with pytest.raises(DataError, match="n_overlaps above 0"):
        ensemble_overlaps(without)
    shifts = ensemble_shifts(turned)
    with pytest.raises(DataError, match="at least three single members"):
        decompose_members(shifts[shifts["number"] < 2], "z")
    with pytest.raises(DataError, match="at least two single members"):
        member_spread(shifts[shifts["number"] < 1])
    with pytest.raises(DataError, match="no spread"):
        widen_intervals(turned, member_spread(shifts).iloc[1:])
    for sizes, values in (([1], [0.1]), ([1, 2], [0.1, math.nan])):
        with pytest.raises(DataError, match="two or more sizes"):
            fit_decomposition(sizes, values)
    with pytest.raises(DataError, match="leaves the scanned range"):
        ensemble_shifts(turned.assign(z_upper=math.inf))
