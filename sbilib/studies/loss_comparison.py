r"""Which loss to train with: networks of several losses, each judged by the metrics of all.

Every loss trains the same networks on the same events, all seeds as one stack, and ordinary histograms on
held-out events give all metrics along the way (Simpson 2023, section 7.6).  What no observable can beat is
known here, because the densities are: :func:`plane_limit` bins the plane so finely that nothing is lost,

.. math:: q(\text{observable}) \le q(\text{plane}),

since a bin of any observable is a sum of bins of the plane, and adding up bins loses information.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from sbilib.differentiable import (
    AnalysisSettings,
    ExpectedYields,
    Templates,
    asimov_q,
    sigma_mu,
)
from sbilib.differentiable.inference import cls_of, p0_of
from sbilib.errors import check_count, check_range
from sbilib.problems.blobs import BLOBS, BlobEvents, GaussianBlobs
from sbilib.studies.summaries import SummaryRun, SummaryStudy, SummaryTrainer
from sbilib.studies.summary_metrics import SummaryMetrics, evaluate_summary

__all__ = [
    "InferenceLimit",
    "TrackedRun",
    "cross_table",
    "observable_in_plane",
    "plane_limit",
    "train_tracked",
]


@dataclass(frozen=True, eq=False)
class TrackedRun:
    """A training whose metrics were recorded every few epochs.

    Args:
        run: the trained stack; its rows are records, not epochs.
        epochs: epoch of each record, ``(n_records,)``, the first 0.
        rebinned: metrics of the same networks in other numbers of equal bins, each
            ``(n_records, n_members)``, by number of bins.
    """

    run: SummaryRun
    epochs: Tensor
    rebinned: Mapping[int, SummaryMetrics]

    @property
    def best_epoch(self) -> Tensor:
        """Epoch of the lowest loss of hard histograms for each member, ``(n_members,)``."""
        return self.epochs[self.run.best_epoch]


def train_tracked(
    study: SummaryStudy,
    events: BlobEvents,
    held_out: BlobEvents,
    *,
    seeds: Sequence[int],
    record_every: int = 1,
    also_bins: Sequence[int] = (),
    edge_rate: float | None = None,
) -> TrackedRun:
    """Train one network for each seed and record metrics at the start and every few epochs.

    Args:
        study: what is trained, and how; its epochs.
        events: training events of the four samples, as many of each, float32.
        held_out: events for the metrics.
        seeds: of initial weights and order of events.
        record_every: epochs between two records, at least 1; the last epoch is always recorded.
        also_bins: further numbers of equal bins to evaluate with.  For a loss that knows no bins, one
            training serves them all.
        edge_rate: learning rate of learned edges; that of the network if None.

    Raises:
        ParameterError: if there are no seeds, or a number is below its range.
        DataError: if samples are empty or of different sizes, or training diverges.

    Source:
        Simpson 2023, section 7.6.
    """
    check_count("record_every", record_every, low=1)
    trainer = SummaryTrainer(study, events, held_out, seeds=seeds)
    if edge_rate is not None and study.learn_edges:
        check_range("edge_rate", edge_rate, low=0.0, include_low=False)
        groups: list[dict[str, Any]] = [
            {"params": list(trainer.stack.parameters())},
            {"params": list(trainer.edges.parameters()), "lr": edge_rate},
        ]
        trainer.optimizer = torch.optim.Adam(groups, lr=study.learning_rate, fused=True)
    epochs: list[int] = []
    other: dict[int, list[SummaryMetrics]] = {check_count("also_bins", n, low=2): [] for n in also_bins}

    def record(epoch: int) -> None:
        trainer.record()
        epochs.append(epoch)
        outputs = trainer.trained().outputs(trainer.held_out) if other else None
        for n_bins, rows in other.items():
            if outputs is not None:
                edges = torch.linspace(0, 1, n_bins + 1, dtype=torch.float64)
                rows.append(
                    evaluate_summary(outputs, edges, yields=study.yields, settings=study.loss.settings)
                )

    record(0)
    for epoch in range(study.n_epochs):
        for batch in trainer.batches(epoch):
            trainer.step(batch)
        if (epoch + 1) % record_every == 0 or epoch + 1 == study.n_epochs:
            record(epoch + 1)
    rebinned = {
        n_bins: SummaryMetrics(*(torch.stack(list(each)) for each in zip(*rows, strict=True)))
        for n_bins, rows in other.items()
    }
    return TrackedRun(trainer.result(), torch.tensor(epochs), rebinned)


def cross_table(evaluated: Mapping[str, SummaryMetrics], metrics: Sequence[str]) -> pd.DataFrame:
    """Trained on one loss, judged by all: mean and spread over the seeds.

    Args:
        evaluated: metrics ``(n_members,)`` of the networks of each loss, by its name.
        metrics: fields of :class:`~sbilib.studies.summary_metrics.SummaryMetrics`, the columns.

    Returns:
        One row a loss; columns ``(metric, "mean")`` and ``(metric, "spread")``, the latter the standard
        deviation over seeds (NaN for one seed).

    Example:
        >>> one = SummaryMetrics(*[torch.tensor([1.0, 3.0])] * 9)
        >>> cross_table({"cls": one}, ["cls", "p0"])["cls"].to_numpy().round(3).tolist()
        [[2.0, 1.414]]
    """
    rows = {
        name: {
            (metric, which): float(value)
            for metric in metrics
            for which, value in _mean_and_spread(getattr(result, metric)).items()
        }
        for name, result in evaluated.items()
    }
    columns = pd.MultiIndex.from_product([list(metrics), ["mean", "spread"]])
    return pd.DataFrame([list(row.values()) for row in rows.values()], index=list(rows), columns=columns)


def _mean_and_spread(values: Tensor) -> dict[str, Tensor]:
    spread = values.std() if len(values) > 1 else values.new_tensor(torch.nan)
    return {"mean": values.mean(), "spread": spread}


@torch.no_grad()
def observable_in_plane(run: SummaryRun, axis: Tensor) -> Tensor:
    """The observable of the best network of each member on a square grid.

    Args:
        run: trained networks of two features and one output.
        axis: coordinates of either feature, ``(n,)``.

    Returns:
        Values in (0, 1), ``(n_members, n, n)``; rows belong to the second feature.
    """
    y, x = torch.meshgrid(axis.float(), axis.float(), indexing="ij")
    flat = torch.stack([x.ravel(), y.ravel()], dim=-1)
    return torch.sigmoid(run.best.stack(flat)).reshape(-1, len(axis), len(axis))


class InferenceLimit(NamedTuple):
    """What an observable that lost nothing would reach."""

    cls: float
    """Expected CLs."""
    p0: float
    """Expected discovery p-value."""
    sigma_mu: float
    """Expected uncertainty of the signal strength."""


def plane_limit(
    problem: GaussianBlobs, yields: ExpectedYields, *, n_cells: int = 60, half_width: float = 7.0
) -> InferenceLimit:
    r"""The best CLs, p0 and uncertainty that any binned observable of the plane can have.

    .. math:: n_{ij} = N\, [\Phi(x_{i+1} - m_x) - \Phi(x_i - m_x)]\,[\Phi(y_{j+1} - m_y) - \Phi(y_j - m_y)]

    Args:
        problem: the four normal distributions.
        yields: expected events.
        n_cells: cells along each axis; the limit of many is approached from the side of less information.
        half_width: the cells cover the square from minus to plus this coordinate, the outermost all beyond.

    Returns:
        The limits, with exact expected events and no floor under empty bins.  Where the model interpolates
        the expected events linearly in the three templates, as code 4p does, no observable can be better.

    Raises:
        ParameterError: if a number is out of its range.

    Example:
        >>> limit = plane_limit(GaussianBlobs.neos(), ExpectedYields.neos(), n_cells=12)
        >>> 0 < limit.cls < 1e-3
        True
    """
    check_count("n_cells", n_cells, low=2)
    check_range("half_width", half_width, low=0.0, include_low=False)
    edges = torch.linspace(-half_width, half_width, n_cells + 1, dtype=torch.float64)
    edges[0], edges[-1] = -torch.inf, torch.inf
    cells = []
    for blob in BLOBS:
        along = [torch.special.ndtr(edges - mean).diff().clamp_min(0.0) for mean in problem.mean(blob)]
        cells.append((along[1][:, None] * along[0]).ravel())
    scales = (yields.signal, yields.background, yields.background, yields.background)
    templates = Templates(*(scale * cell for scale, cell in zip(scales, cells, strict=True)))
    settings = AnalysisSettings(floor=1e-12)
    model, fit = templates.model(settings), templates.conditional_fit(settings)
    q_cls, q_p0 = asimov_q(model, tested=(1.0, 0.0), true=(0.0, 1.0), conditional_fit=fit)
    return InferenceLimit(
        float(cls_of(q_cls, log=False)), float(p0_of(q_p0, log=False)), float(sigma_mu(model))
    )
