r"""The first study of neos: several losses, the same networks, metrics after each epoch.

A unit is one network: a loss and a seed, which decides initial weights and the order of the training events.
Metrics after each epoch come from ordinary histograms of held-out events.  At the end the same networks are
also measured without simulated events: the features have known densities, so the expected events of a bin
are sums over the cells of a fine grid,

.. math:: n_i = N \sum_{jk:\, f(x_j, y_k) \in \text{bin } i} \Delta\Phi(x_j - m_x)\, \Delta\Phi(y_k - m_y),

and no bin is empty by chance (Simpson 2023, section 7.4.1, Fig. 7.19; the second measurement is ours).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from sbilib.differentiable import (
    Templates,
    expected_cls,
    expected_covariance,
    expected_p0,
    make_loss,
    sigma_mu,
)
from sbilib.errors import ParameterError, check_count
from sbilib.models.summary import SummaryConfig
from sbilib.problems.blobs import BLOBS, GaussianBlobs
from sbilib.studies.summaries import SummaryStudy, TrainedSummaries, train_summaries
from sbilib.studies.unit_results import UnitStudy

__all__ = ["NEOS_LOSSES", "NeosPlan", "SeedGain", "exact_templates", "gain_over_baseline", "seed_matrix"]

NEOS_LOSSES: Mapping[str, str] = {
    "bce": "BCE",
    "bce_augmented": "BCE, augmented",
    "cls": "neos (CLs)",
    "sigma_mu": "INFERNO (σ)",
    "log_cls": "neos (ln CLs)",
}
"""The four losses of the published study and, last, one of ours, with their names in tables."""

_CODE = (
    "problems/blobs.py",
    "models/summary.py",
    "models/stack.py",
    "differentiable/*.py",
    "histfactory/*.py",
    "studies/summaries.py",
    "studies/summary_metrics.py",
    "studies/neos_study.py",
)
_METRICS = ("cls", "p0", "sigma_mu", "sigma_shape", "cross_entropy")


@dataclass(frozen=True)
class NeosPlan:
    """Settings of every training, and how many there are.

    Args:
        n_seeds: networks of each loss.
        n_events: training events of each of the four samples.
        n_held_out: held-out events of each sample, for the metrics after each epoch.
        n_epochs: passes through the training events.
        batch_size: events of all four samples in a batch.
        hidden: nodes of the hidden layers.
        n_bins: equal bins of the observable.
        bandwidth: of the kernels in training.
        n_cells: cells along each axis for the expected events without simulation.
        seed: of the events; the seeds of the networks are 0, 1, and so on.
        losses: names in :data:`NEOS_LOSSES`.

    Raises:
        ParameterError: if a count is not positive.

    Example:
        >>> NeosPlan(n_seeds=1).units
        ('bce-0000', 'bce_augmented-0000', 'cls-0000', 'sigma_mu-0000', 'log_cls-0000')
    """

    n_seeds: int = 7
    n_events: int = 2500
    n_held_out: int = 1000
    n_epochs: int = 15
    batch_size: int = 2000
    hidden: tuple[int, ...] = (1024, 1024)
    n_bins: int = 5
    bandwidth: float = 0.09
    n_cells: int = 120
    seed: int = 1
    losses: tuple[str, ...] = tuple(NEOS_LOSSES)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        for name in ("n_seeds", "n_events", "n_held_out", "n_cells"):
            check_count(name, getattr(self, name), low=1)

    @classmethod
    def from_parameters(cls, values: Mapping[str, Any]) -> NeosPlan:
        """The plan from the parameters of the page; others among them are ignored."""
        return cls(**{key: value for key, value in values.items() if key in cls.__dataclass_fields__})

    @property
    def units(self) -> tuple[str, ...]:
        """Names of the units: loss and seed."""
        return tuple(f"{loss}-{seed:04d}" for seed in range(self.n_seeds) for loss in self.losses)

    @property
    def facts(self) -> dict[str, Any]:
        """All settings but the number of seeds and the losses, as values that JSON has."""
        facts = {**asdict(self), "hidden": list(self.hidden)}
        return {name: value for name, value in facts.items() if name not in ("n_seeds", "losses")}

    def study(self, name: str = "neos") -> UnitStudy:
        """The study in units, for :mod:`sbilib.studies.unit_results`."""
        return UnitStudy(name, self.facts, self.units, _CODE, self.make_unit)

    def training(self, loss: str) -> SummaryStudy:
        """What is trained for a loss."""
        return replace(
            SummaryStudy.neos(make_loss(loss), n_bins=self.n_bins),
            network=replace(SummaryConfig.neos(), hidden=self.hidden),
            bandwidth=self.bandwidth,
            n_epochs=self.n_epochs,
            batch_size=self.batch_size,
        )

    def make_unit(self, unit: str) -> pd.DataFrame:
        """Train and measure one network.

        Args:
            unit: a name such as ``"cls-0003"``.

        Returns:
            A row for each epoch on held-out events (``exact`` false), and one without simulated events at
            the last epoch (``exact`` true) with the expected events in each bin.
        """
        loss, _, seed = unit.rpartition("-")
        problem = GaussianBlobs.neos()
        events = problem.sample(self.n_events, seed=2 * self.seed)
        held_out = problem.sample(self.n_held_out, seed=2 * self.seed + 1)
        run = train_summaries(self.training(loss), events, held_out, seeds=[int(seed)])
        same = {"loss": loss, "seed": int(seed)}
        rows: list[dict[str, Any]] = []
        for epoch in range(self.n_epochs + 1):
            values = {name: getattr(run.metrics, name)[epoch].item() for name in _METRICS}
            rows.append({**same, "epoch": epoch, "exact": False, **values})
        templates = exact_templates(run.final, problem, n_cells=self.n_cells)
        rows.append({**same, "epoch": self.n_epochs, "exact": True, **_measured(run.final, templates)})
        return pd.DataFrame(rows)


@torch.no_grad()
def exact_templates(
    trained: TrainedSummaries, problem: GaussianBlobs, *, n_cells: int = 120, half_width: float = 7.0
) -> Templates:
    """Templates ``(n_members, n_bins)`` from the densities of the samples instead of events.

    Args:
        trained: networks with one output, and the edges of their bins.
        problem: the four normal distributions.
        n_cells: cells along each axis; every cell goes to one bin, that of its center.
        half_width: the cells cover the square from minus to plus this coordinate; nothing lies beyond.

    Raises:
        ParameterError: if the networks have one output for each bin.
    """
    if trained.edges is None:
        raise ParameterError("exact templates need networks with one output; got one output for each bin")
    edges = torch.linspace(-half_width, half_width, n_cells + 1, dtype=torch.float64)
    centers = (edges[1:] + edges[:-1]) / 2
    y, x = torch.meshgrid(centers, centers, indexing="ij")
    points = torch.stack([x.ravel(), y.ravel()], dim=-1).float()
    observable = torch.sigmoid(trained.stack(points).double())
    inner = trained.edges[:, 1:-1].double().contiguous()
    n_bins = trained.edges.shape[-1] - 1
    chosen = torch.nn.functional.one_hot(torch.searchsorted(inner, observable), n_bins).double()
    yields, counts = trained.study.yields, []
    for blob in BLOBS:
        along = [torch.special.ndtr(edges - mean).diff() for mean in problem.mean(blob)]
        mass = (along[1][:, None] * along[0]).ravel()
        counts.append((mass / mass.sum()) @ chosen)
    scales = (yields.signal, *(yields.background,) * 3)
    return Templates(*(scale * count for scale, count in zip(scales, counts, strict=True)))


def _measured(trained: TrainedSummaries, templates: Templates) -> dict[str, Any]:
    """Metrics and bin contents of a stack of one."""
    model = templates.model(trained.study.loss.settings)
    place = model.parameter_names.index("shape")
    bins = {name: getattr(templates, name)[0].tolist() for name in BLOBS}
    return {
        "cls": expected_cls(model).item(),
        "p0": expected_p0(model).item(),
        "sigma_mu": sigma_mu(model).item(),
        "sigma_shape": expected_covariance(model)[0, place, place].sqrt().item(),
        **{f"{name} {i}": value for name, values in bins.items() for i, value in enumerate(values)},
    }


def seed_matrix(table: pd.DataFrame, loss: str, metric: str) -> Tensor:
    """A metric on held-out events, ``(n_epochs + 1, n_seeds)``, in float64."""
    rows = table[(table.loss == loss) & ~table.exact]
    wide = rows.pivot_table(index="epoch", columns="seed", values=metric, dropna=False)
    return torch.tensor(wide.to_numpy(), dtype=torch.float64)


class SeedGain(NamedTuple):
    """How a loss compares with a baseline, seed by seed."""

    median: float
    """Median of the metric over the seeds of the loss."""
    baseline: float
    """Median of the baseline."""
    gain: float
    """Mean of baseline minus loss over the seeds."""
    spread: float
    """Standard deviation of a difference of single seeds."""
    wins: int
    """Pairs of a seed of the loss and one of the baseline in which the loss has the smaller value."""
    pairs: int
    """Pairs in all."""


def gain_over_baseline(values: Sequence[float], baseline: Sequence[float]) -> SeedGain:
    r"""Compare a metric that should be small over the seeds of two trainings.

    .. math:: g = \bar y_{\mathrm{base}} - \bar y, \qquad
              s = \sqrt{s_{\mathrm{base}}^2 + s^2}

    Args:
        values: of the loss, one for each seed.
        baseline: of the baseline, one for each seed.

    Raises:
        ParameterError: if either is empty.

    Example:
        >>> gain_over_baseline([1.0, 2.0, 3.0], [5.0, 6.0, 7.0]).gain
        4.0
    """
    if not len(values) or not len(baseline):
        raise ParameterError("a comparison needs at least one seed of each; got none")
    ours = torch.as_tensor(list(values), dtype=torch.float64)
    theirs = torch.as_tensor(list(baseline), dtype=torch.float64)
    spread = [each.std().item() if len(each) > 1 else float("nan") for each in (ours, theirs)]
    return SeedGain(
        ours.median().item(),
        theirs.median().item(),
        (theirs.mean() - ours.mean()).item(),
        (spread[0] ** 2 + spread[1] ** 2) ** 0.5,
        int((ours[:, None] < theirs).sum()),
        len(ours) * len(theirs),
    )


def unit_studies(values: Mapping[str, Any]) -> dict[str, UnitStudy]:
    """The trainings of the page with these parameters, by suffix of the folder of their table."""
    return {"": NeosPlan.from_parameters(values).study()}
