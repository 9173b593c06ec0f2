r"""Train summary statistics for what an analysis is after: all seeds of a study together, with any loss.

A network makes a number of each event, a binned kernel density estimate (or a softmax) fills templates of
signal, background and varied backgrounds, a HistFactory model is built of them, and a loss of that model
trains the network (Simpson and Heinrich 2021, arXiv:2203.05570; Simpson 2023, sections 7.4 and 7.6).  What
is reported are metrics of ordinary histograms on held-out events.

The members of a stack differ in their initial weights and in the order of events.  Their losses are added up;
since no member enters the loss of another, each follows its own gradient, as if trained alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from sbilib.differentiable import (
    ExpectedYields,
    Logits,
    Loss,
    OrderedEdges,
    Templates,
    binned_kde,
    softmax_histogram,
)
from sbilib.errors import DataError, ParameterError, check_count, check_range
from sbilib.models.summary import SummaryConfig, SummaryStack
from sbilib.problems.blobs import BlobEvents
from sbilib.studies.summary_metrics import SummaryMetrics, evaluate_summary, hard_templates

__all__ = ["SummaryRun", "SummaryStudy", "SummaryTrainer", "TrainedSummaries", "train_summaries"]

_MIX = 1_000_003


@dataclass(frozen=True)
class SummaryStudy:
    """What is trained, and how.

    Args:
        loss: what is minimized.
        network: shape of the network; with several outputs, one for each bin.
        n_bins: bins of the summary.
        bandwidth: of the kernels, in units of the summary, whose range is 0 to 1; not used with a softmax.
        temperature: of the softmax, for networks with one output for each bin.
        learn_edges: whether the edges between the bins are learned together with the network.
        yields: expected events.
        n_epochs: passes through the training events.
        batch_size: events of all four samples in a batch, a multiple of 4.
        learning_rate: of Adam.

    Raises:
        ParameterError: if a number is out of its range, or the network does not fit the bins or the loss.
    """

    loss: Loss
    network: SummaryConfig = field(default_factory=SummaryConfig.deep)
    n_bins: int = 5
    bandwidth: float = 0.09
    temperature: float = 0.1
    learn_edges: bool = False
    yields: ExpectedYields = field(default_factory=ExpectedYields.neos)
    n_epochs: int = 100
    batch_size: int = 2000
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        check_count("n_bins", self.n_bins, low=2)
        check_count("n_epochs", self.n_epochs, low=1)
        check_count("batch_size", self.batch_size, low=4)
        for name in ("bandwidth", "temperature", "learning_rate"):
            check_range(name, getattr(self, name), low=0.0, include_low=False)
        if self.batch_size % 4:
            raise ParameterError(f"batch_size must be a multiple of the four samples, got {self.batch_size}")
        outputs = self.network.n_outputs
        if outputs not in (1, self.n_bins):
            raise ParameterError(
                f"the network must have one output, or {self.n_bins} for as many bins, got {outputs}; "
                "change one of them"
            )
        if outputs > 1 and (self.loss.needs_logits or self.learn_edges):
            raise ParameterError(
                f"a network with one output for each bin has no edges and no logit to classify with; use "
                f"n_outputs=1 with the loss {self.loss.name!r} or learn_edges=True"
            )

    @classmethod
    def neos(cls, loss: Loss, *, n_bins: int = 5) -> SummaryStudy:
        """The published first study: 1024-1024-1, 15 epochs (Simpson 2023, section 7.4.1).

        The source states neither number of bins nor bandwidth of that study; 5 and 0.09 are those of its
        second one.
        """
        return cls(loss, network=SummaryConfig.neos(), n_bins=n_bins, n_epochs=15)

    @classmethod
    def deep(cls, loss: Loss, *, n_bins: int = 5, learn_edges: bool = False) -> SummaryStudy:
        """The published second study: 128-128-128-128-1, about 100 epochs (Simpson 2023, section 7.6)."""
        return cls(loss, n_bins=n_bins, learn_edges=learn_edges)


@dataclass(frozen=True, eq=False)
class TrainedSummaries:
    """Networks of a study and the edges of their bins.

    Args:
        stack: the networks, one for each seed.
        edges: ``(n_members, n_bins + 1)``, or None for networks with one output for each bin.
        study: how they were trained.
    """

    stack: SummaryStack
    edges: Tensor | None
    study: SummaryStudy

    @torch.no_grad()
    def outputs(self, events: BlobEvents) -> Logits:
        """Outputs of every member for the four samples."""
        return Logits(*(self.stack(each) for each in events))

    def templates(self, events: BlobEvents) -> Templates:
        """Templates of whole events, ``(n_members, n_bins)``."""
        return hard_templates(self.outputs(events), self.edges, self.study.yields)

    def evaluate(self, events: BlobEvents) -> SummaryMetrics:
        """Metrics of every member on events it was not trained with."""
        return evaluate_summary(
            self.outputs(events), self.edges, yields=self.study.yields, settings=self.study.loss.settings
        )


@dataclass(frozen=True, eq=False)
class SummaryRun:
    """Result of a training.

    Args:
        final: the networks after the last epoch.
        best: each network as it was after its best epoch.
        best_epoch: that epoch for each member, ``(n_members,)``, counted from 0, the start.
        metrics: metrics on held-out events, each ``(n_epochs + 1, n_members)``; the first row is the start.
        loss: the loss from ordinary histograms on held-out events, ``(n_epochs + 1, n_members)``.
    """

    final: TrainedSummaries
    best: TrainedSummaries
    best_epoch: Tensor
    metrics: SummaryMetrics
    loss: Tensor


def train_summaries(
    study: SummaryStudy,
    events: BlobEvents,
    held_out: BlobEvents,
    *,
    seeds: Sequence[int],
    device: torch.device | str = "cpu",
) -> SummaryRun:
    """Train one network for each seed, all at once.

    Args:
        study: what is trained, and how.
        events: training events of the four samples, as many of each, float32.
        held_out: events for the metrics.
        seeds: of initial weights and order of events.
        device: where to train.

    Returns:
        Networks after the last and after the best epoch, and metrics after each.  The best epoch has the
        lowest loss on ``held_out``, so its metrics there are slightly optimistic; use fresh events to
        quote them.

    Raises:
        ParameterError: if there are no seeds.
        DataError: if samples are empty or of different sizes, or training diverges.

    Source:
        Simpson 2023, sections 7.4.1 and 7.6.
    """
    trainer = SummaryTrainer(study, events, held_out, seeds=seeds, device=device)
    trainer.record()
    for epoch in range(study.n_epochs):
        for batch in trainer.batches(epoch):
            trainer.step(batch)
        trainer.record()
    return trainer.result()


class SummaryTrainer:
    """One training of a stack, step by step; :func:`train_summaries` runs it.

    Args:
        study: what is trained, and how.
        events: training events of the four samples, as many of each, float32.
        held_out: events for the metrics.
        seeds: of initial weights and order of events.
        device: where to train.

    Raises:
        ParameterError: if there are no seeds.
        DataError: if samples are empty or of different sizes.
    """

    def __init__(
        self,
        study: SummaryStudy,
        events: BlobEvents,
        held_out: BlobEvents,
        *,
        seeds: Sequence[int],
        device: torch.device | str = "cpu",
    ) -> None:
        sizes = {len(each) for each in events}
        if len(sizes) != 1 or not min(sizes):
            raise DataError(
                f"events must hold as many of each sample, got {[len(each) for each in events]}; "
                "draw as many of each"
            )
        self.study, self.seeds, self.device = study, tuple(seeds), torch.device(device)
        self.events = torch.stack(list(events)).to(device)
        self.held_out = BlobEvents(*(each.to(device) for each in held_out))
        self.stack = SummaryStack(study.network, seeds=self.seeds).to(device)
        self.edges = OrderedEdges(study.n_bins, members=(len(seeds),)).to(device)
        groups = [*self.stack.parameters(), *(self.edges.parameters() if study.learn_edges else ())]
        self.optimizer = torch.optim.Adam(groups, lr=study.learning_rate, fused=True)
        self.metrics: list[SummaryMetrics] = []
        self.losses: list[Tensor] = []
        self.best: dict[str, Tensor] = {}

    def batches(self, epoch: int) -> Iterator[Tensor]:
        """Batches ``(4, n_members, n, d)`` of an epoch; each member has an order of its own."""
        n, size = self.events.shape[1], min(self.study.batch_size // 4, self.events.shape[1])
        orders = []
        for seed in self.seeds:
            generator = Generator().manual_seed(seed * _MIX + epoch)
            orders.append(torch.stack([torch.randperm(n, generator=generator) for _ in range(4)]))
        order = torch.stack(orders, dim=1).to(self.device)
        sample = torch.arange(4, device=self.device)[:, None, None]
        for start in range(0, n - size + 1, size):
            yield self.events[sample, order[..., start : start + size]]

    def step(self, batch: Tensor) -> None:
        """One step of Adam on the sum of the losses of all members."""
        n = batch.shape[2]
        # Losses that never look at the varied backgrounds are not charged for them.
        used = batch if self.study.loss.needs_variations else batch[:2]
        outputs = self.stack(used.movedim(0, 1).flatten(1, 2)).split(n, dim=1)
        loss = self.value(Logits(*outputs, *outputs[1:2] * (4 - len(used))))
        self.optimizer.zero_grad(set_to_none=True)
        loss.sum().backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def value(self, outputs: Logits) -> Tensor:
        """The loss of each member, with soft histograms."""
        loss = self.study.loss
        templates = self.soft_templates(outputs) if loss.needs_templates else None
        return loss(logits=outputs if loss.needs_logits else None, templates=templates)

    def soft_templates(self, outputs: Logits) -> Templates:
        """Templates that gradients flow through."""
        study, n = self.study, outputs.signal.shape[1]
        together = torch.stack(list(outputs))
        if study.network.n_outputs > 1:
            counts = softmax_histogram(together, temperature=study.temperature)
        else:
            edges = self.edges() if study.learn_edges else self.edges().detach()
            counts = binned_kde(torch.sigmoid(together), edges, bandwidth=study.bandwidth, overflow=True)
        spread = counts[1].detach().sqrt() if study.loss.settings.statistical else None
        return Templates.from_counts(*counts, n_events=n, yields=study.yields, uncertainty=spread)

    def trained(self) -> TrainedSummaries:
        """The networks as they are."""
        edges = self.edges().detach().clone() if self.study.network.n_outputs == 1 else None
        return TrainedSummaries(self.stack, edges, self.study)

    @torch.no_grad()
    def record(self) -> None:
        """Evaluate on held-out events, and keep the weights of members that are better than ever before."""
        now, loss = self.trained(), self.study.loss
        outputs = now.outputs(self.held_out)
        templates = hard_templates(outputs, now.edges, self.study.yields)
        self.losses.append(loss(logits=outputs if loss.needs_logits else None, templates=templates).double())
        self.metrics.append(now.evaluate(self.held_out))
        past = torch.stack(self.losses)
        better = past.nan_to_num(nan=torch.inf).argmin(0) == len(past) - 1
        for name, value in self.state().items():
            kept = self.best.setdefault(name, value.clone())
            kept[better] = value[better]

    def state(self) -> dict[str, Tensor]:
        """Weights and edges, each with the members first."""
        return {**self.stack.state_dict(), "edges": self.edges().detach()}

    def result(self) -> SummaryRun:
        """Everything that was recorded."""
        best = SummaryStack(self.study.network, seeds=self.seeds).to(self.device)
        edges = self.best.pop("edges")
        best.load_state_dict(self.best)
        loss = torch.stack(self.losses)
        return SummaryRun(
            final=self.trained(),
            best=TrainedSummaries(best, edges if self.study.network.n_outputs == 1 else None, self.study),
            best_epoch=loss.nan_to_num(nan=torch.inf).argmin(0),
            metrics=SummaryMetrics(*(torch.stack(list(each)) for each in zip(*self.metrics, strict=True))),
            loss=loss,
        )
