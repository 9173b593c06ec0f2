r"""The energy scale of the hadronic tau, as a change of recorded events.

A scale :math:`z` multiplies the transverse momentum of the tau, and what the tau gains the missing transverse
momentum loses,

.. math:: p_T^\tau \to z\,p_T^\tau, \qquad
          \vec p_T^{\;\mathrm{miss}} \to \vec p_T^{\;\mathrm{miss}} - (z - 1)\,\vec p_T^{\;\tau},

so lepton + tau + missing momentum stays as it is.  Everything derived is then computed again.
The challenge defines it so, and rounds to three decimals; here nothing is, so the shift can be undone.

Source: Bhimji et al., arXiv:2410.02867, section on systematic biases.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sbilib.errors import DataError, ParameterError
from sbilib.simulation.schema import PRIMARY, column

__all__ = ["scale_tau_energy"]

_TAU_PT, _TAU_PHI = column("PRI_had_pt"), column("PRI_had_phi")
_MET, _MET_PHI = column("PRI_met"), column("PRI_met_phi")


def scale_tau_energy(primary: Tensor, scale: Tensor) -> Tensor:
    """Events with the tau energy scale moved from 1 to ``scale``, computed in float64.

    Args:
        primary: events ``(n, 16)`` in the order of `PRIMARY`, in GeV and rad.
        scale: positive scale z of each event, shape ``(n,)``, or one for all, shape ``()``.

    Returns:
        New events ``(n, 16)`` in the dtype of ``primary``.  No selection is applied.

    Raises:
        DataError: if the events have the wrong shape.
        ParameterError: if a scale is not positive and finite, or their number does not fit.

    Example:
        A tau of 40 GeV that is measured 10% harder takes 4 GeV off missing momentum in its direction:

        >>> event = torch.tensor([[30.0, 0, 0, 40.0, 0, 1.0] + 6 * [-25.0] + [0, 0, 10.0, 1.0]])
        >>> moved = scale_tau_energy(event, torch.tensor([1.1]))
        >>> [round(moved[0, column(name)].item(), 4) for name in ("PRI_had_pt", "PRI_met", "PRI_met_phi")]
        [44.0, 6.0, 1.0]
    """
    if primary.dim() != 2 or primary.shape[1] != len(PRIMARY):
        raise DataError(
            f"primary must have shape (n_events, {len(PRIMARY)}), got {tuple(primary.shape)}; give the "
            "columns of sbilib.simulation.schema.PRIMARY"
        )
    if scale.dim() > 1 or (scale.dim() == 1 and len(scale) != len(primary)):
        raise ParameterError(
            f"scale must be one value or one per event, shape ({len(primary)},), got {tuple(scale.shape)}; "
            "give each event its scale"
        )
    z = scale.to(primary.device).double()
    if not bool(((z > 0) & z.isfinite()).all()):
        raise ParameterError("every tau energy scale must be positive and finite; choose values near 1")
    tau_pt, tau_phi = primary[:, _TAU_PT].double(), primary[:, _TAU_PHI].double()
    met, met_phi = primary[:, _MET].double(), primary[:, _MET_PHI].double()
    gain = (z - 1) * tau_pt
    met_x = met * met_phi.cos() - gain * tau_phi.cos()
    met_y = met * met_phi.sin() - gain * tau_phi.sin()
    moved = primary.clone()
    moved[:, _TAU_PT] = (z * tau_pt).to(primary.dtype)
    moved[:, _MET] = torch.hypot(met_x, met_y).to(primary.dtype)
    moved[:, _MET_PHI] = torch.atan2(met_y, met_x).to(primary.dtype)
    return moved
