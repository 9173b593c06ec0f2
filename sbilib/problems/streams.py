"""Independent random streams from one seed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator

from sbilib.errors import check_count

__all__ = ["spawn_generators"]


def spawn_generators(seed: int, n: int, *, device: torch.device | str = "cpu") -> tuple[Generator, ...]:
    """Return ``n`` generators whose streams are independent of each other.

    One generator that is seeded alike for several samples would give all of them the same noise, and their
    differences would look far more certain than they are.

    Args:
        seed: not negative.
        n: how many.
        device: where the generators draw.

    Raises:
        ParameterError: if the seed or ``n`` is not an integer in its range.

    Example:
        >>> first, second = spawn_generators(3, 2)
        >>> bool(torch.rand(1, generator=first) == torch.rand(1, generator=second))
        False
    """
    check_count("seed", seed)
    check_count("n", n, low=1)
    children = np.random.SeedSequence(seed).spawn(n)
    states = [int(child.generate_state(1, np.uint64)[0]) >> 1 for child in children]
    return tuple(Generator(device).manual_seed(state) for state in states)
