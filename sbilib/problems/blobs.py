r"""Four normal distributions in the plane: signal, background, and the background varied up and down.

.. math:: p(x \mid c) = \mathcal N(x;\, m_c,\, 1), \qquad
          c \in \{\mathrm{signal}, \mathrm{background}, \mathrm{up}, \mathrm{down}\}

The two variations are what a systematic uncertainty does to the background at plus and minus one standard
deviation (Simpson and Heinrich 2021, arXiv:2203.05570; Simpson 2023, section 7.4.1, Fig. 7.18).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sbilib.errors import ParameterError, check_choice, check_count, check_events, check_range
from sbilib.problems.streams import spawn_generators

__all__ = ["BLOBS", "BlobEvents", "GaussianBlobs"]

BLOBS = ("signal", "background", "up", "down")
"""The names of the four samples, in the order in which they are stored."""

_Point = tuple[float, float]


class BlobEvents(NamedTuple):
    """Events of the four samples, each ``(n_events, 2)``."""

    signal: Tensor
    background: Tensor
    up: Tensor
    down: Tensor


@dataclass(frozen=True)
class GaussianBlobs:
    """Four unit normal distributions in the plane.

    Args:
        signal: mean of the signal, in units of the common width.
        background: mean of the nominal background.
        up: mean of the background at plus one standard deviation of its uncertainty.
        down: mean of the background at minus one standard deviation.

    Raises:
        ParameterError: if a mean is not a pair of finite numbers.

    Example:
        >>> events = GaussianBlobs.neos().sample(5, seed=1)
        >>> events.signal.shape, events.up.shape
        (torch.Size([5, 2]), torch.Size([5, 2]))
    """

    signal: _Point
    background: _Point
    up: _Point
    down: _Point

    def __post_init__(self) -> None:
        for name in BLOBS:
            mean = tuple(getattr(self, name))
            if len(mean) != 2:
                raise ParameterError(
                    f"{name} must be the two coordinates of a mean, got {mean!r}; pass (x, y)"
                )
            object.__setattr__(self, name, tuple(check_range(name, coordinate) for coordinate in mean))

    @classmethod
    def neos(cls) -> GaussianBlobs:
        """The published means (Simpson 2023, section 7.4.1)."""
        return cls(signal=(-1.0, 1.0), background=(2.5, 2.0), up=(-2.5, -1.5), down=(1.0, -1.0))

    def mean(self, blob: str) -> Tensor:
        """Mean of a sample, ``(2,)`` in float64.

        Raises:
            ParameterError: if there is no such sample.
        """
        return torch.tensor(getattr(self, check_choice("blob", blob, BLOBS)), dtype=torch.float64)

    def sample(
        self, n: int, *, seed: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> BlobEvents:
        """Draw ``n`` events of each sample, each from a random stream of its own.

        Args:
            n: events of each sample, at least 1.
            seed: not negative; the same seed gives the same events.
            dtype: of the events.
            device: where the events are drawn.

        Raises:
            ParameterError: if ``n`` or ``seed`` is not an integer in its range.
        """
        check_count("n", n, low=1)
        events = []
        for blob, generator in zip(BLOBS, spawn_generators(seed, len(BLOBS), device=device), strict=True):
            noise = torch.randn(n, 2, generator=generator, dtype=dtype, device=device)
            events.append(noise + self.mean(blob).to(noise))
        return BlobEvents(*events)

    def log_prob(self, blob: str, x: Tensor) -> Tensor:
        """Exact log density of events ``x`` (n, 2) of a sample; returns ``(n,)``.

        Raises:
            ParameterError: if there is no such sample.
            DataError: if events are empty, of the wrong shape, or not finite.
        """
        check_events("x", x, 2)
        return -0.5 * (x - self.mean(blob).to(x)).square().sum(-1) - math.log(2 * math.pi)
