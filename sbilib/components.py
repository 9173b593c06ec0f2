r"""What problems, models and the likelihood hand to each other.

A method that knows the densities of signal and background, exactly or learned, returns them for
``n`` events at ``m`` values of the nuisance parameter :math:`z`,

.. math:: s_{ij} = \log p(x_i \mid \mathrm{sig}, z_j) + c_i, \qquad
          b_{ij} = \log p(x_i \mid \mathrm{bkg}, z_j) + c_i,

where the constant :math:`c_i` of an event is shared by both and drops out of every likelihood ratio
(it is zero for exact densities and flows, and minus the log reference density for classifiers).

A nuisance parameter that acts as a known invertible map of the events has a reference frame, in which the
densities do not depend on it.  `NuisanceMap` is that map.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from sbilib.errors import DataError

__all__ = ["ComponentDensities", "FramedEvents", "LogComponents", "NuisanceMap", "check_framed"]


class LogComponents(NamedTuple):
    """Log densities of both components, up to one constant per event that they share."""

    signal: Tensor
    """Signal, shape ``(n_events, n_nuisance)``."""
    background: Tensor
    """Background, shape ``(n_events, n_nuisance)``."""


class ComponentDensities(Protocol):
    """Anything the likelihood can use: exact densities, a flow pair, a classifier pair, histograms."""

    def log_components(self, x: Tensor, nuisance: Tensor) -> LogComponents:
        """Log densities of events ``x`` (n_events, n_features) at ``nuisance`` values (n_nuisance,)."""
        ...


class FramedEvents(NamedTuple):
    """Events in the reference frame of a `NuisanceMap`."""

    events: Tensor
    """Events in the frame, shape ``(n, d)``."""
    log_det: Tensor
    """Log of the absolute Jacobian determinant of the map at each event, shape ``(n,)``."""


class NuisanceMap(Protocol):
    r"""A known invertible map :math:`T_z` of events that takes the effect of the nuisance parameter away.

    If the events :math:`u = T_z(x)` follow one density :math:`p_0` whatever :math:`z` is, then

    .. math:: p(x \mid z) = p_0\bigl(T_z(x)\bigr)\;
              \Bigl|\det \frac{\partial T_z}{\partial x}(x)\Bigr| ,

    so a model that learns :math:`p_0` alone knows the dependence on :math:`z` exactly.  The same
    construction serves any problem whose nuisance acts as a known invertible map: a rotation, an energy
    scale, a shift.  It need not preserve volume, and the Jacobian may depend on the event.  Group-equivariant
    posterior estimation is built on the same identity (Louppe 2024, takeaway 7).
    """

    def to_reference(self, x: Tensor, nuisance: Tensor) -> FramedEvents:
        """Take events ``x`` (n, d), each at its own ``nuisance`` (n,), to the frame."""
        ...

    def from_reference(self, u: Tensor, nuisance: Tensor) -> Tensor:
        """Take events ``u`` (n, d) of the frame to the ``nuisance`` (n,) of each; returns ``(n, d)``."""
        ...


def check_framed(framed: FramedEvents, x: Tensor) -> FramedEvents:
    """Return what a `NuisanceMap` made of events ``x`` (n, d) if its shapes are right and all is finite.

    Raises:
        DataError: if they are not; the message names the first such event.
    """
    shapes = tuple(framed.events.shape), tuple(framed.log_det.shape)
    if shapes != (tuple(x.shape), (len(x),)):
        raise DataError(
            f"to_reference must return events of shape {tuple(x.shape)} and log_det of shape ({len(x)},), "
            f"got {shapes[0]} and {shapes[1]}; correct the map"
        )
    bad = ~(framed.events.isfinite().all(dim=1) & framed.log_det.isfinite())
    if bool(bad.any()):
        first = int(bad.nonzero()[0, 0])
        raise DataError(
            f"to_reference gave {int(bad.sum())} of {len(x)} events that are NaN or infinite or have such a "
            f"log_det (first: event {first}, {x[first].tolist()}); remove the events outside the domain of "
            "the map, or correct the map"
        )
    return framed
