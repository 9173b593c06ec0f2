r"""What level the edges of parabolic intervals really have (Sluijter 2024, appendix B).

In units of its standard deviation, with :math:`\delta = (\theta - \hat\theta)/\sigma`, a profile is

.. math:: \mathrm{NLL} - \min = \tfrac12 \delta^2 + \tfrac{\gamma}{6} \delta^3 + \tfrac{\kappa}{24} \delta^4
          + \dots, \qquad \gamma = \sigma^3\, \mathrm{NLL}''', \quad \kappa = \sigma^4\, \mathrm{NLL}'''' .

At :math:`\delta = \pm1` it holds :math:`-2\log\lambda = 1 \pm \gamma/3 + \kappa/12`, not 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from torch import Tensor

from sbilib.errors import check_range
from sbilib.likelihood import (
    EventSets,
    Intervals,
    NuisanceTable,
    Profile,
    fit_event_sets,
    fit_quartic,
    parabolic_levels,
    profile_windows,
)
from sbilib.problems import bootstrap_counts, make_test_set
from sbilib.problems.base import ExactProblem
from sbilib.studies.coverage import ABOVE_ALL, nuisance_nodes, seeded_generator, test_points
from sbilib.studies.kept import kept_table

__all__ = ["counting_skewness", "edge_levels", "predicted_level"]


def predicted_level(skewness: float, *, upper: bool, kurtosis: float = 0.0) -> float:
    r"""Level at an edge of a parabolic interval, :math:`2\Phi(\sqrt{1 \pm \gamma/3 + \kappa/12}) - 1`.

    Args:
        skewness: scaled third derivative :math:`\gamma` of the NLL.
        upper: the upper edge, else the lower one.
        kurtosis: scaled fourth derivative :math:`\kappa`.

    >>> round(predicted_level(-0.24, upper=False), 3), round(predicted_level(-0.24, upper=True), 3)
    (0.701, 0.663)
    """
    rise = 1 + (skewness if upper else -skewness) / 3 + kurtosis / 12
    return math.erf(math.sqrt(max(rise, 0.0) / 2))


def counting_skewness(signal_ratio: float, n_events: int) -> float:
    r"""Skewness of the NLL of the signal ratio if every label were known, :math:`-2(1 + 2\mu)/\sqrt{n\mu}`.

    Args:
        signal_ratio: best signal ratio :math:`\mu`, positive.
        n_events: number of events :math:`n`.

    Raises:
        ParameterError: for a ratio that is not positive, or no events.

    >>> round(counting_skewness(0.1, 1000), 2)
    -0.24
    """
    check_range("signal_ratio", signal_ratio, low=0.0, include_low=False)
    check_range("n_events", n_events, low=1)
    return -2 * (1 + 2 * signal_ratio) / math.sqrt(n_events * signal_ratio)


def edge_levels(
    problem: ExactProblem,
    *,
    windows: Sequence[float],
    k: int = 9,
    set_size: int = 1000,
    n_bootstrap: int = 100,
    seed: int,
) -> pd.DataFrame:
    """True levels at both edges of the parabolic intervals of bootstrap sets, with the exact likelihood.

    Args:
        problem: a problem with exact densities.
        windows: windows of the quartic fit; infinity for the whole range.
        k: events of a test set over those of a bootstrap set.
        set_size: events in a bootstrap set.
        n_bootstrap: bootstrap sets of the one test set at each of the nine test points.
        seed: seed of test sets and bootstrap, not negative.

    Returns:
        A row per bootstrap set, parameter and window: ``lower`` and ``upper`` level as in appendix B,
        ``skewness`` and ``kurtosis`` of the quartic, ``asymmetry`` of the interval by exact crossings (upper
        plus lower arm over the width), ``open`` where that interval leaves the scanned range, ``best``, the
        exact best fit, and ``shift``, the best fit of the quartic minus the exact one over the half-width of
        the exact interval.

    >>> from sbilib.problems import GaussianToy
    >>> table = edge_levels(GaussianToy(2.0), windows=[4.5], n_bootstrap=2, k=1, seed=1)
    >>> table.groupby("parameter").size().to_dict()
    {'mu': 18, 'z': 18}
    """
    for name, value in (("k", k), ("set_size", set_size), ("n_bootstrap", n_bootstrap)):
        check_range(name, value, low=1)
    facts = {
        "k": k,
        "set_size": set_size,
        "n_bootstrap": n_bootstrap,
        "seed": seed,
        "windows": list(windows),
    }

    def compute() -> pd.DataFrame:
        parts = []
        for number, (ratio, nuisance) in enumerate(test_points(problem)):
            generator = seeded_generator(seed, k, set_size, number)
            events = make_test_set(
                problem, signal_ratio=ratio, nuisance=nuisance, generator=generator, n_events=k * set_size
            ).events
            counts = bootstrap_counts(len(events), n_bootstrap, set_size, generator)
            table = NuisanceTable.build(problem, events, nuisance_nodes(problem))
            parts.append(_levels_of_sets(EventSets.from_counts(table, counts), windows))
            parts[-1] = parts[-1].assign(mu=ratio, z=nuisance)
        return pd.concat(parts, ignore_index=True)

    return kept_table("edge-levels", {"problem": repr(problem), **facts}, compute)


def _levels_of_sets(sets: EventSets, windows: Sequence[float]) -> pd.DataFrame:
    fits = fit_event_sets(sets)
    parts = []
    for window in windows:
        profiles = profile_windows(sets, fits, window=min(window, ABOVE_ALL))
        for parameter, profile, interval in (
            ("mu", profiles.signal_ratio, fits.ratio_interval),
            ("z", profiles.nuisance, fits.nuisance_interval),
        ):
            columns = _levels_of_profiles(profile, interval, None if math.isinf(window) else window)
            table = pd.DataFrame({name: value.numpy() for name, value in columns.items()})
            parts.append(table.assign(parameter=parameter, window=window))
    return pd.concat(parts, ignore_index=True)


def _levels_of_profiles(profile: Profile, interval: Intervals, window: float | None) -> dict[str, Tensor]:
    fit, levels = fit_quartic(profile, window=window), parabolic_levels(profile, window=window)
    cubic, quartic = fit.coefficients[:, 3], fit.coefficients[:, 4]
    t, scale = (fit.best - fit.center) / fit.half_width, fit.sigma / fit.half_width
    return {
        "best": interval.best,
        "open": interval.lower_open | interval.upper_open,
        "lower": levels.lower,
        "upper": levels.upper,
        "skewness": (6 * cubic + 24 * quartic * t) * scale**3,
        "kurtosis": 24 * quartic * scale**4,
        "asymmetry": (interval.upper + interval.lower - 2 * interval.best) / interval.width,
        "shift": 2 * (fit.best - interval.best) / interval.width,
    }
