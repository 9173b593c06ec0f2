r"""Train summaries for the synthetic benchmark of INFERNO, and measure what they reach.

A network with a softmax of :math:`K` outputs shares each event among :math:`K` bins.  The loss is the
expected uncertainty of the signal yield from the Fisher information of the bins,

.. math:: I_{jk} = \sum_i \frac{\partial_j n_i\,\partial_k n_i}{n_i}, \qquad
          n_i = s\,p^s_i + b\,p^b_i(r, \lambda), \qquad L = \sqrt{[(I + C)^{-1}]_{ss}}\,,

with the constraints :math:`C` of a case (de Castro and Dorigo 2019, arXiv:1806.04743, section 4).
Derivatives with respect to :math:`r` and :math:`\lambda` flow through the events to the bins in forward
mode, and the gradient of the loss with respect to the weights flows back through both.

Results come from whole events in the bin of their largest output.  Derivatives of such counts are averages of
the exact score of the background density, so nothing is smoothed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sbilib.differentiable import binned_information
from sbilib.errors import DataError, ParameterError, check_choice, check_count, check_range
from sbilib.models.summary import SummaryConfig, SummaryStack
from sbilib.problems.inferno import (
    INFERNO_CASES,
    InfernoBenchmark,
    InfernoCase,
    InfernoNoise,
    sigma_of_signal,
)
from sbilib.problems.streams import spawn_generators

__all__ = ["InfernoRun", "InfernoStudy", "background_shares", "inferno_loss", "train_inferno"]

_CHUNK = 50_000


@dataclass(frozen=True)
class InfernoStudy:
    """What is trained, and how.

    Args:
        case: which parameters are free or constrained.
        benchmark: yields and place of the signal.
        network: with one output for each bin.
        temperature: of the softmax.
        n_events: training events, half of them signal.
        n_steps: optimizer steps.
        batch_size: events in a batch, half of them signal.
        learning_rate: of Adam at the start; it falls to zero along a cosine.
        slopes: how derivatives of the background are found in training: ``"events"``, through the events and
            the network; or ``"score"``, with the score of the density as event weights, which is less noisy.

    Raises:
        ParameterError: if a number is out of its range or the network does not fit.
    """

    case: InfernoCase = field(default_factory=lambda: INFERNO_CASES["B3"])
    benchmark: InfernoBenchmark = field(default_factory=InfernoBenchmark.published)
    network: SummaryConfig = field(default_factory=lambda: SummaryConfig.inferno(activation="silu"))
    temperature: float = 0.1
    n_events: int = 200_000
    n_steps: int = 4000
    batch_size: int = 2000
    learning_rate: float = 2e-3
    slopes: str = "score"

    def __post_init__(self) -> None:
        check_choice("slopes", self.slopes, ("events", "score"))
        for name in ("temperature", "learning_rate"):
            check_range(name, getattr(self, name), low=0.0, include_low=False)
        for name in ("n_events", "batch_size"):
            check_count(name, getattr(self, name), low=2)
        check_count("n_steps", self.n_steps, low=1)
        if self.batch_size > self.n_events:
            raise ParameterError(
                f"batch_size must not exceed n_events {self.n_events}, got {self.batch_size}; make it smaller"
            )
        if self.network.n_outputs < 2 or self.network.n_features != 3:
            raise ParameterError(
                f"the network must take 3 features and have an output for each of at least two bins, got "
                f"{self.network}; pass SummaryConfig.inferno()"
            )
        if self.network.activation == "relu" and self.slopes == "events":
            raise ParameterError(
                "the derivative of a relu network with respect to the events jumps, and its gradient misses "
                "the jumps; use 'silu' or 'tanh'"
            )


@dataclass(frozen=True, eq=False)
class InfernoRun:
    """Result of a training.

    Args:
        stack: the networks, one for each seed.
        study: how they were trained.
        loss: of the batches, ``(n_steps, n_members)``, in events.
    """

    stack: SummaryStack
    study: InfernoStudy
    loss: Tensor

    @torch.no_grad()
    def information(self, *, seed: int, n_events: int = 1_000_000) -> Tensor:
        """Fisher information of the hard bins of every member, ``(n_members, 4, 4)``, from fresh events.

        Args:
            seed: of the events; not one that trained the networks.
            n_events: of each component.
        """
        benchmark, members = self.study.benchmark, self.stack.n_members
        device = next(self.stack.parameters()).device
        n_bins = self.study.network.n_outputs
        sums = torch.zeros(members, 4, n_bins, dtype=torch.float64, device=device)
        generator = spawn_generators(seed, 1, device=device)[0]
        for start in range(0, n_events, _CHUNK):
            n = min(_CHUNK, n_events - start)
            background = benchmark.background(benchmark.noise(n, generator))
            signal = benchmark.signal(benchmark.noise(n, generator))
            scores = _weights(benchmark, background.double())
            sums[:, 0] += _bin_sums(self.stack(signal), signal.new_ones(1, n).double())[:, 0]
            sums[:, 1:] += _bin_sums(self.stack(background), scores)
        mean = sums / n_events
        s, b = benchmark.signal_yield, benchmark.background_yield
        slopes = torch.stack([mean[:, 0], b * mean[:, 2], b * mean[:, 3], mean[:, 1]], dim=1)
        return _information_of_filled(s * mean[:, 0] + b * mean[:, 1], slopes)

    def sigma(self, *, seed: int, n_events: int = 1_000_000, case: InfernoCase | None = None) -> Tensor:
        """Expected uncertainty of the signal yield from hard bins, ``(n_members,)``, in events.

        Args:
            seed: of the events; not one that trained the networks.
            n_events: of each component.
            case: parameters that are free in the measurement; those of the training if None.
        """
        return sigma_of_signal(self.information(seed=seed, n_events=n_events), case or self.study.case)


def _weights(benchmark: InfernoBenchmark, x: Tensor) -> Tensor:
    """Ones and scores of background events as weights, ``(3, n)``; the known mean of zero is taken out."""
    score = benchmark.background_score(x)
    return torch.cat([torch.ones_like(score[:1]), score - score.mean(1, keepdim=True)])


def _bin_sums(outputs: Tensor, weights: Tensor) -> Tensor:
    """Sums of weights (k, n) over the events in each bin: ``(n_members, k, n_bins)``."""
    chosen = torch.nn.functional.one_hot(outputs.argmax(-1), outputs.shape[-1]).double()
    return weights @ chosen


def _information_of_filled(expected: Tensor, slopes: Tensor) -> Tensor:
    """Information with bins left out that no event of either component reaches."""
    empty = expected <= 0
    slopes = torch.where(empty.unsqueeze(-2), 0.0, slopes)
    return binned_information(torch.where(empty, 1.0, expected), slopes)


def train_inferno(
    study: InfernoStudy, *, seeds: Sequence[int], data_seed: int = 0, device: torch.device | str = "cpu"
) -> InfernoRun:
    """Train one network for each seed, all at once.

    Args:
        study: what is trained, and how.
        seeds: of initial weights and batches.
        data_seed: of the training events, which all members share.
        device: where to train.

    Raises:
        ParameterError: if there are no seeds.
        DataError: if a loss is not finite.

    Source:
        de Castro and Dorigo 2019, Algorithm 1.
    """
    device = torch.device(device)
    stack = SummaryStack(study.network, seeds=tuple(seeds)).to(device)
    half = study.n_events // 2
    streams = spawn_generators(data_seed, 2, device=device)
    signal, background = (study.benchmark.noise(half, stream) for stream in streams)
    pick = spawn_generators(min(seeds), 1, device=device)[0]
    optimizer = torch.optim.Adam(stack.parameters(), lr=study.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, study.n_steps)
    losses = []
    for _ in range(study.n_steps):
        rows = torch.randint(half, (2, study.batch_size // 2), generator=pick, device=device)
        loss = inferno_loss(stack, study, _take(signal, rows[0]), _take(background, rows[1]))
        optimizer.zero_grad(set_to_none=True)
        loss.sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
    history = torch.stack(losses)
    if not bool(history.isfinite().all()):
        step, member = (int(i) for i in (~history.isfinite()).nonzero()[0])
        raise DataError(
            f"the loss of seed {seeds[member]} is not finite at step {step}; lower the learning rate or "
            "raise the temperature"
        )
    return InfernoRun(stack, study, history)


def _take(noise: InfernoNoise, rows: Tensor) -> InfernoNoise:
    return InfernoNoise(*(each[rows] for each in noise))


def inferno_loss(
    stack: SummaryStack, study: InfernoStudy, signal: InfernoNoise, background: InfernoNoise
) -> Tensor:
    """The loss of every member for one batch, ``(n_members,)``, in events.

    Args:
        stack: networks.
        study: benchmark, case and temperature.
        signal: noise of signal events.
        background: noise of background events.
    """
    benchmark = study.benchmark
    of_signal = _shares(stack(benchmark.signal(signal)), study.temperature).mean(-2, dtype=torch.float64)
    of_background, slope_r, slope_rate = background_shares(stack, study, background)
    s, b = benchmark.signal_yield, benchmark.background_yield
    expected = s * of_signal + b * of_background
    slopes = torch.stack([of_signal, b * slope_r, b * slope_rate, of_background], dim=-2)
    return sigma_of_signal(binned_information(expected.clamp_min(1e-9), slopes), study.case)


def _shares(outputs: Tensor, temperature: float) -> Tensor:
    return torch.softmax(outputs / temperature, dim=-1)


def background_shares(
    stack: SummaryStack, study: InfernoStudy, noise: InfernoNoise
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean share of each bin and its derivatives in r and lambda, each ``(n_members, n_bins)``."""
    x = study.benchmark.background(noise)
    if study.slopes == "score":
        share = _shares(stack(x), study.temperature)
        mean, *slopes = (_weights(study.benchmark, x) / len(x) @ share).double().unbind(1)
        return mean, slopes[0], slopes[1]
    along_r = torch.zeros_like(x)
    along_r[:, 0] = 1.0
    along_rate = torch.zeros_like(x)
    along_rate[:, 2] = -x[:, 2] / study.benchmark.rate
    # Both directions in one pass: the events twice, each copy with a direction of its own.
    n = len(x)
    with forward_ad.dual_level():
        twice = forward_ad.make_dual(x.repeat(2, 1), torch.cat([along_r, along_rate]))  # type: ignore[no-untyped-call]
        outputs, rates = forward_ad.unpack_dual(stack(twice))  # type: ignore[no-untyped-call]
    if rates is None:
        raise ParameterError("the outputs do not depend on the events; check the network")
    # The softmax by hand: PyTorch's forward derivative of it cannot be differentiated again.
    share = _shares(outputs[:, :n], study.temperature)
    rates = rates.unflatten(1, (2, n)) / study.temperature
    slopes = share.unsqueeze(1) * (rates - (share.unsqueeze(1) * rates).sum(-1, keepdim=True))
    slope_r, slope_rate = slopes.mean(-2, dtype=torch.float64).unbind(1)
    return share.mean(-2, dtype=torch.float64), slope_r, slope_rate
