"""From the tables of the search to histograms, templates, and what the pages show.

>>> binning = Binning("m_bb", (0.0, 100.0, 150.0, 300.0))
>>> sample = BinnedSample(binning, [3.0, 2.0, 1.0], [3.0, 2.0, 1.0], 10.0)
>>> in_region(sample, 100.0, 200.0).counts.tolist()
[2.0]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from sbilib.errors import DataError, ParameterError, check_choice
from sbilib.studies.amplification import Amplification, amplification
from sbilib.studies.amplified_templates import BinnedSample, Binning, merged_binning
from sbilib.studies.model_error import ShapeModes, shape_modes
from sbilib.studies.reweighting import ReweightingGain, reweighting_gain
from sbilib.studies.search_study import OBSERVABLES, observable_binning

__all__ = [
    "SearchResults",
    "ideal_simulation",
    "in_region",
    "with_noise_of",
]


@dataclass(frozen=True, eq=False)
class SearchResults:
    """Histograms of a table of :class:`~sbilib.studies.search_study.SearchPlan` or of a joined one.

    Neighboring bins are merged until every background histogram of the table has enough events in each, so
    all histograms of an observable share one binning.

    Args:
        table: rows of the units.
        cut: on the score, which fixes the bins.
        least: effective events that a bin needs in each background histogram.
        merge: whether to merge at all; if not, bins may be empty.

    Raises:
        DataError: if rows of the simulation are missing, or histograms are too empty to merge.
    """

    table: pd.DataFrame = field(repr=False)
    cut: float = 0.55
    least: float = 10.0
    merge: bool = True

    def __post_init__(self) -> None:
        missing = {"reference", "signal"} - set(self.table.kind)
        if missing:
            raise DataError(f"the table has no rows of kind {sorted(missing)}; add the unit 'score'")

    @cached_property
    def binnings(self) -> Mapping[str, Binning]:
        """The binning of each observable."""
        fine = {name: observable_binning(name, self.cut) for name in OBSERVABLES}
        if not self.merge:
            return fine
        backgrounds = self.table[~self.table.kind.isin(["signal", "training"])]
        return {
            name: merged_binning(
                [_sample(backgrounds[backgrounds.observable == name], fine[name], "backgrounds")],
                least=self.least,
            )
            for name in OBSERVABLES
        }

    @property
    def area(self) -> float:
        """Area under the ROC curve of the classifier."""
        return float(self.table.auc.dropna().iloc[0])

    def simulated(self, kind: str, observable: str) -> BinnedSample:
        """Simulated events that no training has seen.

        Args:
            kind: ``"reference"``, the background, or ``"signal"``.
            observable: ``"score"`` or ``"m_bb"``.

        Raises:
            ParameterError: for another kind or observable.
        """
        check_choice("kind", kind, ("reference", "signal"))
        rows = self._rows(observable, kind=kind).iloc[:1]
        return _single(self._binned(rows, observable, kind))

    def generated(
        self, recipe: str, n_train: int, observable: str, *, number: int = 0, kind: str = "generated"
    ) -> BinnedSample:
        """Histograms of the nominal training for each number of events, ``(n_counts, n_bins)``.

        Args:
            recipe: name of the model.
            n_train: its training events.
            observable: ``"score"`` or ``"m_bb"``.
            number: of the training set.
            kind: ``"generated"``, ``"reweighted"`` or ``"training"``.

        Raises:
            DataError: if there is no such training.
        """
        rows = self._rows(
            observable, kind=kind, recipe=recipe, n_train=n_train, number=number, member="nominal"
        )
        return self._binned(rows.sort_values("n_events"), observable, kind)

    def trainings(
        self,
        recipe: str,
        n_train: int,
        observable: str,
        *,
        kind: str = "generated",
        numbers: Sequence[int] | None = None,
    ) -> BinnedSample:
        """Histograms of the nominal trainings at their largest number of events, ``(n_sets, n_bins)``.

        Args:
            recipe: name of the model.
            n_train: its training events.
            observable: ``"score"`` or ``"m_bb"``.
            kind: as for :meth:`generated`.
            numbers: training sets, by default all.

        Raises:
            DataError: if there is no such training.
        """
        rows = _largest(self._rows(observable, kind=kind, recipe=recipe, n_train=n_train, member="nominal"))
        if numbers is not None:
            missing = sorted(set(numbers) - set(rows.number))
            if missing:
                raise DataError(f"training sets {missing} are not in the table; make those units first")
            rows = rows[rows.number.isin(list(numbers))]
        return self._binned(rows, observable, kind)

    def replicas(self, recipe: str, n_train: int, observable: str, *, number: int = 0) -> BinnedSample:
        """Histograms of the bootstrapped trainings of one set at their largest number of events.

        Args:
            recipe: name of the model.
            n_train: its training events.
            observable: ``"score"`` or ``"m_bb"``.
            number: of the training set.

        Returns:
            Of shape ``(n_models, n_bins)``.

        Raises:
            DataError: if there is no such training.
        """
        rows = self._rows(observable, kind="generated", recipe=recipe, n_train=n_train, number=number)
        return self._binned(_largest(rows[rows.member != "nominal"]), observable, "replicas")

    def modes(
        self, recipe: str, n_train: int, observable: str, *, n_modes: int, numbers: Sequence[int] = (0,)
    ) -> ShapeModes:
        """Error of the model from the bootstrapped trainings.

        Args:
            recipe: name of the model.
            n_train: its training events.
            observable: ``"score"`` or ``"m_bb"``.
            n_modes: correlated modes; the rest of the variance joins the bins.
            numbers: training sets.

        Returns:
            Modes of shape ``(n_numbers, n_modes, n_bins)``, without the first dimension for a single set.

        Raises:
            DataError: if a training is missing.
        """
        found = [self.replicas(recipe, n_train, observable, number=number) for number in numbers]
        fractions = np.stack([each.fractions for each in found])
        noise = np.stack([each.errors**2 for each in found])
        modes = shape_modes(fractions, noise=noise, n_modes=n_modes)
        return modes.member(0) if len(numbers) == 1 else modes

    def pooled_modes(self, recipe: str, n_train: int, observable: str, *, n_modes: int) -> ShapeModes:
        """Error of any model of one kind, from the bootstrapped trainings of all sets that have some.

        Each set has a template of its own, around which its bootstraps scatter; only the scatter is pooled.

        Args:
            recipe: name of the model.
            n_train: its training events.
            observable: ``"score"`` or ``"m_bb"``.
            n_modes: correlated modes; the rest of the variance joins the bins.

        Returns:
            Modes of shape ``(n_modes, n_bins)``.

        Raises:
            DataError: if there are no bootstrapped trainings.
        """
        found = [
            self.replicas(recipe, n_train, observable, number=number)
            for number in self.numbers(recipe, n_train)
        ]
        if not found:
            raise DataError(f"no set of {n_train} events has bootstrapped trainings of {recipe!r}; make some")
        fractions = np.stack([each.fractions for each in found])
        centers = fractions.mean(1, keepdims=True)
        n_sets, n_boots = fractions.shape[:2]
        # One center for each set was fitted, one for all is assumed where the covariance is taken.
        scale = np.sqrt((n_sets * n_boots - 1) / (n_sets * (n_boots - 1)))
        scattered = centers.mean(0) + scale * (fractions - centers)
        noise = np.concatenate([each.errors**2 for each in found])
        return shape_modes(np.concatenate(list(scattered)).clip(0.0), noise=noise, n_modes=n_modes)

    def numbers(self, recipe: str, n_train: int) -> list[int]:
        """Training sets that have bootstrapped trainings."""
        rows = self._rows("score", recipe=recipe, n_train=n_train)
        return sorted(set(rows[rows.member.str.startswith("boot")].number))

    def amplifications(
        self,
        recipe: str,
        sizes: Sequence[int],
        observable: str,
        region: tuple[float, float],
        *,
        kind: str = "generated",
    ) -> list[Amplification]:
        """Amplification against the number of training events, for infinitely many generated events.

        Args:
            recipe: name of the model.
            sizes: numbers of training events.
            observable: ``"score"`` or ``"m_bb"``.
            region: from where to where; bins that lie in it count.
            kind: ``"generated"`` or ``"reweighted"``.
        """
        reference = in_region(self.simulated("reference", observable), *region)
        return [
            amplification(
                in_region(self.trainings(recipe, size, observable, kind=kind), *region),
                reference,
                size,
                subtract_sampling=True,
            )
            for size in sizes
        ]

    def gain(
        self, recipe: str, n_train: int, observable: str, region: tuple[float, float]
    ) -> ReweightingGain:
        """What reweighting removes of the distance from simulation, in a region."""
        before, after = (
            in_region(self.trainings(recipe, n_train, observable, kind=kind), *region)
            for kind in ("generated", "reweighted")
        )
        return reweighting_gain(before, after, in_region(self.simulated("reference", observable), *region))

    def _rows(self, observable: str, **wanted: object) -> pd.DataFrame:
        check_choice("observable", observable, OBSERVABLES)
        rows = self.table[self.table.observable == observable]
        for name, value in wanted.items():
            rows = rows[rows[name] == value]
        if rows.empty:
            raise DataError(f"the table has no rows of {observable} with {wanted}; make those units first")
        return rows

    def _binned(self, rows: pd.DataFrame, observable: str, name: str) -> BinnedSample:
        fine = _sample(rows, observable_binning(observable, self.cut), name)
        return fine.rebinned(self.binnings[observable])


def _sample(rows: pd.DataFrame, binning: Binning, name: str) -> BinnedSample:
    counts, squares = (np.stack([np.asarray(each) for each in rows[key]]) for key in ("counts", "squares"))
    return BinnedSample(binning, counts, squares, rows.total.to_numpy(), name)


def _single(sample: BinnedSample) -> BinnedSample:
    return BinnedSample(sample.binning, sample.counts[0], sample.squares[0], sample.totals[0], sample.name)


def _largest(rows: pd.DataFrame) -> pd.DataFrame:
    """For each training its row with most events, in order."""
    last = rows.sort_values("n_events").groupby(["number", "member"], as_index=False).tail(1)
    return last.sort_values(["number", "member"])


def in_region(sample: BinnedSample, low: float, high: float) -> BinnedSample:
    """The bins that lie between two values; totals stay.

    Args:
        sample: histograms.
        low: smallest lower edge.
        high: largest upper edge.

    Raises:
        ParameterError: if no bin lies there.
    """
    edges = np.asarray(sample.binning.edges)
    inside = np.nonzero((edges[:-1] >= low - 1e-9) & (edges[1:] <= high + 1e-9))[0]
    if not len(inside):
        raise ParameterError(
            f"no bin of {sample.binning.name!r} lies between {low:g} and {high:g}; its edges are "
            f"{edges.round(3).tolist()}; widen the region"
        )
    kept = slice(int(inside[0]), int(inside[-1]) + 1)
    binning = Binning(sample.binning.name, tuple(edges[kept.start : kept.stop + 1]), sample.binning.label)
    return BinnedSample(
        binning, sample.counts[..., kept], sample.squares[..., kept], sample.totals, sample.name
    )


def ideal_simulation(reference: BinnedSample, counts: Sequence[int]) -> BinnedSample:
    """Simulated histograms of any number of events, each as expected: no noise, but the error of one.

    Args:
        reference: one histogram.
        counts: numbers of events before the selection.

    Returns:
        Histograms of shape ``(n_counts, n_bins)``.

    Example:
        >>> sample = BinnedSample(Binning("x", (0, 1)), [50.0], [50.0], 100.0)
        >>> ideal_simulation(sample, [10, 1000]).errors.round(4).tolist()
        [[0.2236], [0.0224]]
    """
    totals = np.asarray(counts, dtype=np.float64)
    expected = totals[:, None] * reference.fractions
    return BinnedSample(reference.binning, expected, expected, totals, "simulated")


def with_noise_of(sample: BinnedSample, reference: BinnedSample) -> BinnedSample:
    """The sample with the statistical errors of a reference added to its own in quadrature.

    A finite reference that stands for the truth is off in the same way for every training.  That is an error
    of the measurement of the coverage, so it is allowed for there.

    Args:
        sample: histograms, ``(*batch, n_bins)``.
        reference: one histogram in the same bins.

    Example:
        >>> sample = BinnedSample(Binning("x", (0, 1)), [9.0], [9.0], 100.0)
        >>> reference = BinnedSample(Binning("x", (0, 1)), [16.0], [16.0], 100.0)
        >>> with_noise_of(sample, reference).errors.round(4).tolist()
        [0.05]
    """
    squares = sample.squares + (sample.totals[..., None] * reference.errors) ** 2
    return BinnedSample(sample.binning, sample.counts, squares, sample.totals, sample.name)
