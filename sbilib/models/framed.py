r"""Densities that are learned in the reference frame of a known map of the nuisance parameter.

Where the nuisance parameter acts as a known invertible map :math:`T_z` (`sbilib.components.NuisanceMap`),
each component has one density :math:`p_0` of the frame, and

.. math:: \log p(x \mid z) = \log p_0(T_z x) + \log |\det \partial T_z / \partial x| .

A flow learns :math:`\log p_0` directly.  A classifier learns a ratio, whose denominator must not depend on
:math:`z`, or must be known.  In the ordinary pair of :mod:`sbilib.models.classifier` it is the same for an
event :math:`x` at every :math:`z`, and drops out.  A ratio learned in the frame is taken at
:math:`u = T_z x`, which moves with :math:`z`, so its denominator moves too.  Hence the negative events are
drawn from a known density :math:`q_0` of the frame.  With balanced classes the optimal logit is
:math:`\ell(u) = \log p_0(u) - \log q_0(u)`, and

.. math:: \log p(x \mid z) = \ell(T_z x) + \log q_0(T_z x) + \log |\det \partial T_z / \partial x| ,

a log density like that of a flow (noise-contrastive estimation, Gutmann and Hyvarinen, JMLR 13 (2012) 307).
Here :math:`q_0` is normal, with the mean of the training events and a multiple of their covariance.

If :math:`p_0` is invariant under a finite group of maps :math:`g` that keep volumes, so is the mean
:math:`\frac{1}{|G|} \sum_g p_0(g u)` of any learned density.  It is normalized, and its Kullback-Leibler
divergence from the truth is at most that of the density it is made of (Jensen's inequality).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

import torch
from torch import Generator, Tensor, nn

from sbilib.components import LogComponents, NuisanceMap, check_framed
from sbilib.errors import DataError, ParameterError, check_events, check_range
from sbilib.models.classifier import Classifier
from sbilib.models.flow import ConditionalFlow

__all__ = [
    "FlowDensity",
    "FrameDensity",
    "FramedPair",
    "MeanDensity",
    "MovedDensity",
    "NormalDensity",
    "RatioDensity",
    "Whitening",
]

PAIRS = 65536
"""Pairs of event and nuisance value that are evaluated at once."""


class FrameDensity(Protocol):
    """A density of the reference frame."""

    def log_prob(self, u: Tensor) -> Tensor:
        """Log density of events ``u`` (n, d) of the frame; returns ``(n,)``."""
        ...


class Whitening(nn.Module):
    r"""Events shifted and scaled linearly to mean zero and unit covariance, :math:`v = L^{-1} (u - m)`.

    Args:
        mean: the mean m, shape ``(d,)``.
        factor: lower Cholesky factor L of the covariance, shape ``(d, d)``.
    """

    mean: Tensor
    factor: Tensor

    def __init__(self, mean: Tensor, factor: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("factor", factor)

    @classmethod
    def of_events(cls, u: Tensor) -> Whitening:
        """The whitening of events ``u`` (n, d).

        Raises:
            DataError: if the events are not finite, or lie in a plane or line of fewer dimensions.
        """
        check_events("u", u, u.shape[-1])
        factor, failed = torch.linalg.cholesky_ex(torch.cov(u.double().T).reshape(u.shape[1], u.shape[1]))
        if bool(failed) or not bool(factor.isfinite().all()):
            raise DataError(
                f"the {len(u)} events do not fill the {u.shape[1]} dimensions of the frame; "
                "give more events, or remove a feature that follows from the others"
            )
        return cls(u.mean(dim=0), factor.to(u))

    @property
    def log_det(self) -> Tensor:
        """Log Jacobian determinant of the whitening, a scalar."""
        return -self.factor.diagonal().log().sum()

    def forward(self, u: Tensor) -> Tensor:
        """Whitened events ``(n, d)`` of events ``u`` (n, d)."""
        whitened: Tensor = torch.linalg.solve_triangular(self.factor, (u - self.mean).T, upper=False)
        return whitened.T


class FlowDensity(nn.Module):
    """A density of the frame learned by a flow of whitened events, whose context is always zero.

    Args:
        flow: the flow.
        whitening: linear map that comes first.
    """

    def __init__(self, flow: ConditionalFlow, whitening: Whitening) -> None:
        super().__init__()
        self.model, self.whitening = flow, whitening

    def log_prob(self, u: Tensor) -> Tensor:
        """Log density of events ``u`` (n, d) of the frame; returns ``(n,)``."""
        context = u.new_zeros(len(u), self.model.config.context_features)
        return self.model.log_prob(self.whitening(u), context) + self.whitening.log_det


class NormalDensity(nn.Module):
    """A normal density of the frame, with the mean of a whitening and a multiple of its covariance.

    Args:
        whitening: the mean and the covariance.
        widening: factor on all standard deviations.

    Example:
        >>> unit = Whitening(torch.zeros(1), torch.eye(1))
        >>> round(NormalDensity(unit).log_prob(torch.zeros(1, 1)).exp().item(), 4)
        0.3989
    """

    def __init__(self, whitening: Whitening, widening: float = 1.0) -> None:
        super().__init__()
        self.whitening = whitening
        self.widening = check_range("widening", widening, low=0.0, include_low=False)

    def log_prob(self, u: Tensor) -> Tensor:
        """Log density of events ``u`` (n, d) of the frame; returns ``(n,)``."""
        whitened: Tensor = self.whitening(u)
        square = (whitened / self.widening).square().sum(dim=1)
        constant = u.shape[1] * (0.5 * math.log(2.0 * math.pi) + math.log(self.widening))
        return self.whitening.log_det - 0.5 * square - constant


class RatioDensity(nn.Module):
    """A density of the frame learned by a classifier against a known normal density.

    Args:
        classifier: the classifier of whitened events, whose context is always zero.
        reference: the density of its negative class; its whitening comes first.
    """

    log_norm: Tensor

    def __init__(self, classifier: Classifier, reference: NormalDensity) -> None:
        super().__init__()
        self.model, self.reference = classifier, reference
        self.register_buffer("log_norm", torch.zeros(()))

    def log_prob(self, u: Tensor) -> Tensor:
        """Log density of events ``u`` (n, d) of the frame; returns ``(n,)``."""
        return self._logit(self.reference.whitening(u)) - self.log_norm + self.reference.log_prob(u)

    @torch.no_grad()
    def normalize(self, generator: Generator, *, n_events: int = 2**18) -> None:
        r"""Make the density integrate to one, :math:`E_{q_0}[e^{\ell}] = 1`.

        The mean is taken over ``n_events`` drawn from the known density, so no training events are needed.
        """
        weights = self.reference.whitening.mean
        v = torch.randn(n_events, len(weights), generator=generator, device=generator.device).to(weights)
        logits = [self._logit(part).double() for part in torch.split(v * self.reference.widening, PAIRS)]
        self.log_norm.copy_(torch.cat(logits).logsumexp(dim=0) - math.log(n_events))

    def _logit(self, v: Tensor) -> Tensor:
        logit: Tensor = self.model(v, v.new_zeros(len(v), self.model.config.n_context))
        return logit


class MovedDensity(nn.Module):
    """A density of the frame after a map that keeps volumes: ``p(move(u))``.

    Args:
        density: the density.
        move: map of events ``(n, d)`` whose Jacobian is 1 or -1.
    """

    def __init__(self, density: nn.Module, move: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.density, self.move = density, move

    def log_prob(self, u: Tensor) -> Tensor:
        """Log density of events ``u`` (n, d) of the frame; returns ``(n,)``."""
        value: Tensor = self.density.log_prob(self.move(u))  # type: ignore[operator]
        return value


class MeanDensity(nn.Module):
    """The mean of several densities of the frame.

    Args:
        densities: the densities, at least one.

    Raises:
        ParameterError: if there is none.
    """

    def __init__(self, densities: Sequence[nn.Module]) -> None:
        super().__init__()
        if not densities:
            raise ParameterError("a mean density needs at least one density, got none; pass some")
        self.densities = nn.ModuleList(densities)

    @classmethod
    def symmetrized(
        cls, densities: Sequence[nn.Module], invariances: Sequence[Callable[[Tensor], Tensor]]
    ) -> MeanDensity:
        """The mean over densities and over all maps of a finite group, given without its identity."""
        moved = [MovedDensity(density, move) for move in invariances for density in densities]
        return cls([*densities, *moved])

    def log_prob(self, u: Tensor) -> Tensor:
        """Log density of events ``u`` (n, d) of the frame; returns ``(n,)``."""
        parts = torch.stack([density.log_prob(u) for density in self.densities])  # type: ignore[operator]
        return parts.logsumexp(dim=0) - math.log(len(parts))


class FramedPair(nn.Module):
    """Densities of signal and background in the frame of a nuisance map, as component densities.

    Args:
        signal: density of the signal events in the frame.
        background: density of the background events in the frame.
        nuisance_map: the map to the frame.
        n_features: features of an event.

    Example:
        >>> from sbilib.models import FlowConfig
        >>> from sbilib.problems import GaussianToy
        >>> unit = Whitening(torch.zeros(2), torch.eye(2))
        >>> flows = [FlowDensity(ConditionalFlow(FlowConfig.modern(), seed=k), unit) for k in (1, 2)]
        >>> pair = FramedPair(*flows, GaussianToy(2.0).nuisance_map, n_features=2)
        >>> pair.log_components(torch.zeros(3, 2), torch.linspace(0, 1, 4)).signal.shape
        torch.Size([3, 4])
    """

    kind: ClassVar[str] = "framed-pair"

    def __init__(
        self, signal: nn.Module, background: nn.Module, nuisance_map: NuisanceMap, *, n_features: int
    ) -> None:
        super().__init__()
        self.signal, self.background = signal, background
        self.nuisance_map, self.n_features = nuisance_map, n_features

    @torch.no_grad()
    def log_components(self, x: Tensor, nuisance: Tensor) -> LogComponents:
        """Log densities of every event at every nuisance value, in float64.

        The map is applied in float64, the densities have the dtype of their networks.

        Args:
            x: events, shape ``(n, d)``.
            nuisance: nuisance values, shape ``(m,)``.

        Returns:
            Signal and background log densities, each ``(n, m)``.

        Raises:
            DataError: if events or nuisance values are empty, not finite, or of the wrong shape, or if the
                map returns such events.
        """
        check_events("x", x, self.n_features)
        if nuisance.dim() != 1:
            raise DataError(
                f"nuisance must have shape (n_nuisance,), got {tuple(nuisance.shape)}; flatten it"
            )
        check_events("nuisance", nuisance.unsqueeze(-1), 1)
        weights = next(itertools.chain(self.parameters(), self.buffers()))
        x, z = x.to(weights.device).double(), nuisance.to(weights.device).double()
        m = len(z)
        tables = x.new_empty(2, len(x), m)
        for start in range(0, len(x), max(1, PAIRS // m)):
            block = x[start : start + max(1, PAIRS // m)].repeat_interleave(m, dim=0)
            framed = check_framed(self.nuisance_map.to_reference(block, z.repeat(len(block) // m)), block)
            u = framed.events.to(weights)
            for table, density in zip(tables, (self.signal, self.background), strict=True):
                value = density.log_prob(u).double() + framed.log_det  # type: ignore[operator]
                table[start : start + len(block) // m] = value.view(-1, m)
        return LogComponents(*tables.unbind())
