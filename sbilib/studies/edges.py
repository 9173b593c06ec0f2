r"""What a model of the Gaussian toy believes the nuisance parameter to be.

For the toy, :math:`\log p(x|\mathrm{sig}, z) - \log p(x|\mathrm{sig}, z_0) = r\,x \cdot [e(z) - e(z_0)]` with
:math:`e(z) = (\cos z, \sin z)`.  A straight-line fit of the learned difference to the features therefore
reads off an effective direction: its angle is the nuisance value that the model really uses where it was
asked for :math:`z`, and its length the radius.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from sbilib.components import ComponentDensities
from sbilib.errors import check_range
from sbilib.problems import GaussianToy

__all__ = ["EffectiveDirection", "effective_direction"]


class EffectiveDirection(NamedTuple):
    """Direction of the mean of signal events as a model sees it."""

    angle: Tensor
    """Effective angle in rad at each requested angle, shape ``(n_angles,)``."""
    radius: Tensor
    """Effective radius at each requested angle, shape ``(n_angles,)``."""


def effective_direction(
    densities: ComponentDensities,
    toy: GaussianToy,
    angles: Tensor,
    *,
    generator: Generator,
    n_events: int = 20_000,
) -> EffectiveDirection:
    """Fit the direction that ``densities`` assign to signal at each of ``angles``.

    Args:
        densities: exact or learned densities of the toy; the fit takes them to be right at the reference.
        toy: the problem.
        angles: angles in rad, shape ``(n_angles,)``.
        generator: source of randomness of the signal events.
        n_events: signal events drawn at each angle, at least 4.

    Returns:
        Effective angles in rad and radii, in units of the width of the Gaussians.

    Raises:
        ParameterError: if there are fewer than 4 events.

    Example:
        >>> toy = GaussianToy.small_distance()
        >>> angles = torch.tensor([0.1, 1.2], dtype=torch.float64)
        >>> seen = effective_direction(toy, toy, angles, generator=Generator().manual_seed(1), n_events=10)
        >>> [round(float(a), 6) for a in seen.angle], [round(float(r), 6) for r in seen.radius]
        ([0.1, 1.2], [0.5, 0.5])
    """
    check_range("n_events", n_events, low=4)
    reference = torch.tensor([toy.reference_nuisance], dtype=torch.float64)
    slopes = []
    for angle in angles.double():
        x = toy.sample("signal", angle.expand(n_events), generator)
        at = densities.log_components(x, torch.cat((angle.reshape(1), reference))).signal.double()
        design = torch.cat((torch.ones_like(x[:, :1]), x), dim=1)
        solution = torch.linalg.lstsq(design, (at[:, 0] - at[:, 1]).unsqueeze(1)).solution
        slopes.append(solution[1:, 0])
    vectors = torch.stack(slopes) + toy.mean("signal", reference)
    return EffectiveDirection(torch.atan2(vectors[:, 1], vectors[:, 0]), vectors.norm(dim=1))
