r"""Several generative models as one: the mean of their densities.

.. math:: p(x) = \frac1M \sum_{m=1}^{M} p_m(x)

An event is drawn from one of the models, each with the same probability.  Where the errors of models are
independent, the mean has their squared distance from the truth divided by M; what they have in common stays.
Members may be of different kinds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from sbilib.errors import ParameterError
from sbilib.models.files import register_model
from sbilib.models.generative import GenerativeModel
from sbilib.models.generative_physical import TransformedConfig, TransformedDensity

__all__ = ["GenerativeEnsemble", "GenerativeEnsembleConfig"]


@dataclass(frozen=True)
class GenerativeEnsembleConfig:
    """Configurations of the members.

    Raises:
        ParameterError: for no members, or members of different features.
    """

    members: tuple[TransformedConfig, ...]

    def __post_init__(self) -> None:
        if not self.members:
            raise ParameterError("an ensemble needs at least one model")
        names = {member.transform.names for member in self.members}
        if len(names) > 1:
            raise ParameterError(f"members must have the same features in one order, got {sorted(names)}")

    @property
    def features(self) -> int:
        """Number of features of an event."""
        return self.members[0].features

    def to_dict(self) -> dict[str, Any]:
        """Fields by name, ready for JSON."""
        return {"members": [member.to_dict() for member in self.members]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        return cls(tuple(TransformedConfig.from_dict(each) for each in values["members"]))


class GenerativeEnsemble(GenerativeModel):
    """Mean density of several models in physical units.

    Args:
        members: trained models of the same features.

    Raises:
        ParameterError: for no members, or members of different features.

    Example:
        >>> from sbilib.models import MixtureAutoregressive, MixtureConfig, QuantileToNormal
        >>> pt = 20 + 30 * torch.rand(500, 2, generator=torch.Generator().manual_seed(1))
        >>> transform = QuantileToNormal.fit(pt)
        >>> build = lambda seed: MixtureAutoregressive(MixtureConfig.modern(features=2), seed=seed)
        >>> ensemble = GenerativeEnsemble([TransformedDensity(transform, build(seed)) for seed in (1, 2)])
        >>> ensemble.sample(100, torch.Generator().manual_seed(2)).shape, ensemble.log_prob(pt).shape
        (torch.Size([100, 2]), torch.Size([500]))
    """

    kind: ClassVar[str] = "generative-ensemble"
    config: GenerativeEnsembleConfig

    def __init__(self, members: Sequence[TransformedDensity]) -> None:
        super().__init__()
        self.config = GenerativeEnsembleConfig(tuple(member.config for member in members))
        self.members = nn.ModuleList(members)

    @classmethod
    def from_config(cls, config: GenerativeEnsembleConfig) -> Self:
        """Members without knots and with new weights, for a file to fill in."""
        return cls([TransformedDensity.from_config(member) for member in config.members])

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features."""
        return self.config.members[0].transform.names

    def log_prob(self, x: Tensor, *, outside: str = "error") -> Tensor:
        """Log density of events in physical units.

        Args:
            x: events, shape ``(n, features)``.
            outside: what to do with a value outside the range of a map: ``"error"`` or ``"clamp"``.

        Returns:
            Log density of each event, shape ``(n,)``, in one over the units of all features.

        Raises:
            DataError: if the shape is wrong, a value is not finite, or one is outside the range.
        """
        found = torch.stack([member.log_prob(x, outside=outside) for member in self._densities])
        return found.logsumexp(dim=0) - math.log(len(found))

    def forward(self, x: Tensor) -> Tensor:
        """Log density ``(n,)`` of events ``x`` (n, features), as :meth:`log_prob`."""
        return self.log_prob(x)

    @property
    def _densities(self) -> list[TransformedDensity]:
        return [member for member in self.members if isinstance(member, TransformedDensity)]

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Number of the member in the first column, its random numbers in the next ones."""
        device = next(self.parameters()).device
        chosen = torch.randint(len(self.members), (n,), generator=generator, device=device)
        rows = [member._draw(int((chosen == m).sum()), generator) for m, member in enumerate(self._densities)]
        random = rows[0].new_zeros(n, 1 + max(part.shape[1] for part in rows))
        random[:, 0] = chosen.to(random)
        for m, part in enumerate(rows):
            random[chosen == m, 1 : 1 + part.shape[1]] = part
        return random

    def _in_chunks(self, random: Tensor) -> Tensor:
        events = random.new_empty(len(random), self.features)
        for m, member in enumerate(self._densities):
            here = random[:, 0] == m
            if bool(here.any()):
                width = member._draw(1, torch.Generator(random.device)).shape[1]
                events[here] = member._in_chunks(random[here, 1 : 1 + width]).to(events)
        return events


register_model(GenerativeEnsemble.kind, GenerativeEnsembleConfig.from_dict, GenerativeEnsemble.from_config)
