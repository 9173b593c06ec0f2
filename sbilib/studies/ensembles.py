r"""Fits of many sub-ensembles on the same independent toys.

The members are evaluated once for each group of toys.  Every sub-ensemble, of either kind of mean, then
follows from the same numbers, and so do its best fits, its intervals by the crossings of
:math:`-2\log\lambda = 1`, and its overlap with the exact likelihood.  The exact likelihood is fitted on the
same toys: differences between the two are free of the scatter of the toys.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from sbilib.components import ComponentDensities, LogComponents
from sbilib.digest import code_digest
from sbilib.errors import ParameterError, check_choice, check_count, check_range
from sbilib.likelihood import (
    EventSets,
    FitResults,
    Intervals,
    NuisanceTable,
    fit_event_sets,
)
from sbilib.likelihood.checks import check_components
from sbilib.likelihood.table import second_derivative_operator
from sbilib.models.ensemble import ENSEMBLE_KINDS, EvaluatedMembers
from sbilib.models.tabulated import TabulatedMembers
from sbilib.problems import make_toys
from sbilib.problems.base import ExactProblem
from sbilib.studies.coverage import seeded_generator, test_points
from sbilib.studies.kept import kept_table
from sbilib.studies.toy_overlaps import toy_overlaps

__all__ = ["SINGLE", "MemberToys", "SubEnsemble", "disjoint_sub_ensembles", "fit_ensembles"]

SINGLE = "single"
"""Kind of a sub-ensemble of one member, for which both means are the member itself."""
EXACT = "exact"
_CODE = (
    "models/classifier.py",
    "models/ensemble.py",
    "models/flow.py",
    "models/made.py",
    "models/pair.py",
    "models/spline.py",
    "models/tabulated.py",
    "studies/ensembles.py",
    "studies/toy_overlaps.py",
)
_GROUP_EVENTS = 20_000
_PILOT_TOYS = 20


class SubEnsemble(NamedTuple):
    """Some of the members, and how they are averaged."""

    kind: str
    """``"single"``, ``"mean_density"`` or ``"mean_log_ratio"``."""
    members: tuple[int, ...]
    """Numbers of the members."""
    number: int = 0
    """Running number among those of the same kind and size."""


def disjoint_sub_ensembles(
    n_members: int, sizes: Sequence[int], *, kinds: Sequence[str] = ENSEMBLE_KINDS, at_most: int | None = None
) -> list[SubEnsemble]:
    """Cut the members into as many sub-ensembles of each size as there are without sharing a member.

    Args:
        n_members: number of members M.
        sizes: sizes, each between 1 and M.
        kinds: kinds of mean; a single member needs none and occurs once.
        at_most: no more than so many of each size and kind.

    Raises:
        ParameterError: for an unknown kind, or sizes that are empty, repeated or out of range.

    Example:
        >>> [len(s.members) for s in disjoint_sub_ensembles(4, [1, 2], kinds=["mean_density"])]
        [1, 1, 1, 1, 2, 2]
    """
    if not sizes or len(set(sizes)) != len(sizes) or not all(1 <= size <= n_members for size in sizes):
        raise ParameterError(
            f"sizes must be different numbers from 1 to {n_members}, the number of members, got {list(sizes)}"
        )
    for kind in kinds:
        check_choice("kind", kind, ENSEMBLE_KINDS)
    found = []
    for size in sizes:
        for kind in [SINGLE] if size == 1 else kinds:
            count = n_members // size if at_most is None else min(at_most, n_members // size)
            for number in range(count):
                found.append(SubEnsemble(kind, tuple(range(number * size, (number + 1) * size)), number))
    return found


class MemberToys:
    """Independent toys at the nine test points, and the members that are to be judged on them.

    Members of two features are tabulated once, when they are first needed (`TabulatedMembers`).

    Args:
        problem: a problem with exact densities.
        members: component densities, for instance trained pairs.
        seed: seed of the toys, not negative; the members have no part in it.
        n_nodes: nuisance values at which densities are evaluated, over the scanned range.
        spacing: spacing of the tables in units of the features; 0 evaluates the members for every event.

    Raises:
        ParameterError: for a number out of its range, or no members.

    Example:
        >>> from sbilib.problems import GaussianToy
        >>> toys = MemberToys(GaussianToy(2.0), [GaussianToy(2.0)], seed=1, spacing=0)
        >>> table = toys.fit(disjoint_sub_ensembles(1, [1]), n_toys=2, n_events=50)
        >>> len(table), bool((table.groupby(["mu", "z", "toy"]).mu_hat.std() < 1e-6).all())
        (36, True)
    """

    def __init__(
        self,
        problem: ExactProblem,
        members: Sequence[ComponentDensities],
        *,
        seed: int,
        n_nodes: int = 15,
        spacing: float = 0.1,
    ) -> None:
        check_count("n_nodes", n_nodes, low=4)
        check_count("number of members", len(members), low=1)
        self.problem, self.members = problem, tuple(members)
        self.nodes = torch.linspace(*problem.scan_range, n_nodes, dtype=torch.float64)
        self._spacing = check_range("spacing", spacing, low=0.0)
        self._seed = check_count("seed", seed)
        self._tables: TabulatedMembers | None = None

    def fit(
        self,
        sub_ensembles: Sequence[SubEnsemble],
        *,
        n_toys: int,
        n_events: int = 1000,
        n_overlaps: int = 0,
        label: str = "ensembles",
        progress: bool = False,
    ) -> pd.DataFrame:
        """Fit the toys with every sub-ensemble and with the exact likelihood.

        Args:
            sub_ensembles: which to fit.
            n_toys: toys at each test point; the first of them do not depend on their number.
            n_events: events in a toy; the number of signal events is binomial.
            n_overlaps: toys at each test point for which overlaps with the exact likelihood are computed.
            label: name of the progress bar.
            progress: show a progress bar.

        Returns:
            A row per test point (``mu``, ``z``), toy and sub-ensemble (``kind``, ``size``, ``number``; kind
            ``"exact"`` is the exact likelihood), with best fits ``mu_hat``, ``z_hat``, edges ``mu_lower``,
            ``mu_upper``, ``z_lower``, ``z_upper`` (infinite if the interval leaves the scanned range), and
            ``mu_overlap``, ``z_overlap``, ``total_overlap`` (NaN where not computed).  The rows of each test
            point are kept in the cache.

        Raises:
            ParameterError: for a number out of its range, or a sub-ensemble of members that do not exist.
            DataError: if a member returns values that are not finite.
        """
        check_count("n_toys", n_toys, low=1)
        check_count("n_events", n_events, low=1)
        check_count("n_overlaps", n_overlaps)
        _check_sub_ensembles(sub_ensembles, len(self.members))
        facts = {
            "problem": repr(self.problem),
            "members": [_member_digest(member) for member in self.members],
            "sub_ensembles": [list(sub) for sub in sub_ensembles],
            "n_toys": n_toys,
            "n_events": n_events,
            "n_overlaps": n_overlaps,
            "n_nodes": len(self.nodes),
            "spacing": self._spacing,
            "seed": self._seed,
            "code": code_digest(*_CODE),
        }
        bar = tqdm(total=9 * n_toys, desc=f"{self.problem.name}, {label}", disable=not progress)
        tables = []
        for number, point in enumerate(test_points(self.problem)):

            def compute(number: int = number, point: tuple[float, float] = point) -> pd.DataFrame:
                return _fit_point(self, sub_ensembles, number, point, n_toys, n_events, n_overlaps)

            tables.append(kept_table("ensembles", facts | {"point": number}, compute))
            bar.update(n_toys)
        bar.close()
        return pd.concat(tables, ignore_index=True)

    def draw(self, number: int, point: tuple[float, float], n_toys: int, n_events: int, group: int) -> Tensor:
        """One group of toys of a test point, shape ``(n_toys, n_events, n_features)``."""
        return make_toys(
            self.problem,
            signal_ratio=point[0],
            nuisance=point[1],
            n_toys=n_toys,
            n_events=n_events,
            generator=seeded_generator(self._seed, n_events, number, group),
        )

    def evaluate(self, events: Tensor) -> EvaluatedMembers:
        """All members at ``events`` (n, d) and the nodes."""
        if self._spacing == 0 or self.problem.n_features != 2:
            return EvaluatedMembers.evaluate(self.members, events, self.nodes)
        if self._tables is None:
            self._tables = TabulatedMembers(
                self.members, self.nodes, box=self._extent(), spacing=self._spacing
            )
        return self._tables.evaluate(events)

    def _extent(self) -> Tensor:
        """Range of each feature in some toys at every test point, and a little more."""
        pilots = [
            self.draw(number, point, _PILOT_TOYS, 1000, 0).flatten(0, 1)
            for number, point in enumerate(test_points(self.problem))
        ]
        events = torch.cat(pilots)
        margin = 3 * self._spacing
        return torch.stack((events.amin(dim=0) - margin, events.amax(dim=0) + margin), dim=1)


def fit_ensembles(
    problem: ExactProblem,
    members: Sequence[ComponentDensities],
    sub_ensembles: Sequence[SubEnsemble],
    *,
    n_toys: int,
    seed: int,
    n_events: int = 1000,
    n_overlaps: int = 0,
    n_nodes: int = 15,
    spacing: float = 0.1,
) -> pd.DataFrame:
    """`MemberToys` and one call of its ``fit``; arguments, result and errors are theirs."""
    toys = MemberToys(problem, members, seed=seed, n_nodes=n_nodes, spacing=spacing)
    return toys.fit(sub_ensembles, n_toys=n_toys, n_events=n_events, n_overlaps=n_overlaps)


def _check_sub_ensembles(sub_ensembles: Sequence[SubEnsemble], n_members: int) -> None:
    if not sub_ensembles:
        raise ParameterError("no sub-ensemble to fit; pass some, for instance of disjoint_sub_ensembles")
    for sub in sub_ensembles:
        check_choice("kind", sub.kind, (SINGLE, *ENSEMBLE_KINDS))
        if not sub.members or not all(0 <= member < n_members for member in sub.members):
            raise ParameterError(
                f"members of a sub-ensemble must be numbers from 0 to {n_members - 1}, got {sub.members}"
            )
        if (sub.kind == SINGLE) != (len(sub.members) == 1):
            raise ParameterError(f"only a sub-ensemble of one member is of the kind {SINGLE!r}, got {sub}")


def _member_digest(member: ComponentDensities) -> str:
    """What decides the values of a member: its type, configuration and weights, else its text."""
    if not isinstance(member, nn.Module):
        return repr(member)
    digest = hashlib.sha256(f"{type(member).__name__} {getattr(member, 'config', '')}".encode())
    for name, values in member.state_dict().items():
        digest.update(name.encode() + values.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _fit_point(
    source: MemberToys,
    sub_ensembles: Sequence[SubEnsemble],
    number: int,
    point: tuple[float, float],
    n_toys: int,
    n_events: int,
    n_overlaps: int,
) -> pd.DataFrame:
    """All rows of one test point."""
    size = max(1, _GROUP_EVENTS // n_events)
    parts = []
    for group, first in enumerate(range(0, n_toys, size)):
        # A whole group is drawn even if only a part is needed, so that toys do not depend on their number.
        toys = source.draw(number, point, size, n_events, group)[: n_toys - first]
        x = toys.flatten(0, 1)
        evaluated = source.evaluate(x)
        # check_components also names a bad exact density; ensembles were checked as members.
        densities = [
            check_components(source.problem.log_components(x, source.nodes), len(x), len(source.nodes))
        ]
        densities += [_average(evaluated, sub) for sub in sub_ensembles]
        fits = [_fit(components, source.nodes, len(toys)) for components in densities]
        wanted = min(len(toys), max(0, n_overlaps - first))
        overlaps = toy_overlaps(
            densities,
            fits,
            source.nodes,
            n_toys=len(toys),
            wanted=wanted,
            scan_range=source.problem.scan_range,
        )
        for row, fit in enumerate(fits):
            sub = None if row == 0 else sub_ensembles[row - 1]
            parts.append(_rows(fit, sub, first).assign(**_overlap_columns(overlaps, row, len(toys))))
    return pd.concat(parts, ignore_index=True).assign(mu=point[0], z=point[1])


def _average(evaluated: EvaluatedMembers, sub: SubEnsemble) -> LogComponents:
    chosen = evaluated.subset(sub.members)
    return chosen.mean("mean_log_ratio" if sub.kind == SINGLE else sub.kind)


def _fit(components: LogComponents, nodes: Tensor, n_toys: int) -> FitResults:
    ratio = (components.signal - components.background).T.contiguous()
    log_ratio = torch.stack((ratio, second_derivative_operator(nodes) @ ratio))
    table = NuisanceTable(nodes, log_ratio, components.background)
    return fit_event_sets(EventSets.from_toys(table, n_toys))


def _rows(fit: FitResults, sub: SubEnsemble | None, first: int) -> pd.DataFrame:
    columns: dict[str, object] = {
        "toy": first + np.arange(len(fit.nuisance)),
        "kind": EXACT if sub is None else sub.kind,
        "size": 0 if sub is None else len(sub.members),
        "number": 0 if sub is None else sub.number,
    }
    for name, interval in (("mu", fit.ratio_interval), ("z", fit.nuisance_interval)):
        lower, upper = _closed_edges(interval)
        columns |= {f"{name}_hat": interval.best.numpy(), f"{name}_lower": lower, f"{name}_upper": upper}
    return pd.DataFrame(columns)


def _closed_edges(interval: Intervals) -> tuple[np.ndarray, np.ndarray]:
    """Edges, infinite where the interval is open."""
    lower = torch.where(interval.lower_open, -math.inf, interval.lower)
    upper = torch.where(interval.upper_open, math.inf, interval.upper)
    return lower.numpy(), upper.numpy()


def _overlap_columns(overlaps: Tensor, row: int, n_toys: int) -> dict[str, np.ndarray]:
    names = ("mu_overlap", "z_overlap", "total_overlap")
    values = np.full((n_toys, 3), np.nan)
    values[: len(overlaps)] = overlaps[:, row].numpy()
    return dict(zip(names, values.T, strict=True))
