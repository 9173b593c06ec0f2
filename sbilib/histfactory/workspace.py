"""Workspaces: channels, observations and measurements in pyhf's JSON form.

A workspace is checked against pyhf's JSON schema when it is read, then for what a schema cannot see (names
that must agree, bin counts, counts below zero).  Patches are JSON patches (RFC 6902) or members of a pyhf
patch set.

Source: the workspace schema 1.0.0 of pyhf (L. Heinrich et al., JOSS 6, 2823 (2021)).
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import jsonpatch
import jsonpointer
import pyhf
import pyhf.schema
import torch
from torch import Tensor

from sbilib.errors import DataError, ParameterError
from sbilib.histfactory.model import Model
from sbilib.histfactory.specification import Channel, ParameterSettings
from sbilib.histfactory.translation import KINDS, channel_from_dict, channel_to_dict, settings_to_dict

__all__ = ["Patch", "Workspace"]

Patch = Sequence[Mapping[str, Any]] | jsonpatch.JsonPatch
"""A JSON patch: a list of operations or a ``JsonPatch`` (a member of a pyhf patch set is one)."""


class Workspace:
    """A pyhf workspace: read, checked, patched, and turned into models and data.

    Args:
        spec: the workspace as pyhf's JSON, a nested dictionary; it is copied.

    Raises:
        DataError: if the workspace breaks the schema, has an unknown modifier, an observation without a
            channel or a channel without an observation, or observed data that do not fit their channel.

    >>> background = {"name": "background", "data": [5.0, 6.0], "modifiers": []}
    >>> scale = {"name": "mu", "type": "normfactor", "data": None}
    >>> signal = {"name": "signal", "data": [1.0, 2.0], "modifiers": [scale]}
    >>> workspace = Workspace({
    ...     "channels": [{"name": "SR", "samples": [signal, background]}],
    ...     "observations": [{"name": "SR", "data": [6.0, 9.0]}],
    ...     "measurements": [{"name": "search", "config": {"poi": "mu", "parameters": []}}],
    ...     "version": "1.0.0",
    ... })
    >>> model = workspace.model()
    >>> workspace.data(model).tolist(), model.expected_data([1.0]).tolist()
    ([6.0, 9.0], [6.0, 8.0])
    """

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self._spec: dict[str, Any] = copy.deepcopy(dict(spec))
        _check_modifiers(self._spec)
        _check_schema(self._spec)
        _check_observations(self._spec)

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a workspace from a JSON file.

        Raises:
            DataError: if the file is missing or no JSON, or the workspace is faulty.
        """
        try:
            spec = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read a workspace from {path}: {error}; pass a pyhf JSON file") from error
        if not isinstance(spec, dict):
            raise DataError(
                f"{path} holds a {type(spec).__name__}, expected a JSON object; pass a pyhf workspace"
            )
        return cls(spec)

    @classmethod
    def from_channels(
        cls,
        channels: Sequence[Channel],
        observations: Mapping[str, Iterable[float] | Tensor],
        *,
        poi: str | None = "mu",
        settings: Sequence[ParameterSettings] = (),
        measurement: str = "measurement",
    ) -> Self:
        """Write channels (without batch dimensions) and their observed counts as a workspace.

        Raises:
            DataError: if the result is no valid workspace, or a template has batch dimensions.

        >>> from sbilib.histfactory import NormFactor, Sample
        >>> channel = Channel("SR", [Sample("signal", [1.0], [NormFactor("mu")])])
        >>> Workspace.from_channels([channel], {"SR": [2.0]}).measurement_names
        ('measurement',)
        """
        config = {"poi": poi or "", "parameters": [settings_to_dict(each) for each in settings]}
        return cls(
            {
                "channels": [channel_to_dict(channel) for channel in channels],
                "observations": [
                    {"name": name, "data": torch.as_tensor(counts, dtype=torch.float64).tolist()}
                    for name, counts in observations.items()
                ],
                "measurements": [{"name": measurement, "config": config}],
                "version": "1.0.0",
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the workspace as pyhf's JSON (a copy; exactly what was read)."""
        return copy.deepcopy(self._spec)

    def write(self, path: str | Path) -> None:
        """Write the workspace to a JSON file."""
        Path(path).write_text(json.dumps(self._spec, indent=2) + "\n", encoding="utf-8")

    @property
    def measurement_names(self) -> tuple[str, ...]:
        """Names of the measurements, the first one being the default."""
        return tuple(each["name"] for each in self._spec["measurements"])

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels with their samples and modifiers."""
        return tuple(channel_from_dict(each) for each in self._spec["channels"])

    def patched(self, patch: Patch) -> Self:
        """Return the workspace with a JSON patch applied.

        Raises:
            DataError: if the patch does not fit or its result is no valid workspace.

        >>> from sbilib.histfactory import NormFactor, Sample
        >>> channel = Channel("SR", [Sample("signal", [1.0], [NormFactor("mu")])])
        >>> workspace = Workspace.from_channels([channel], {"SR": [2.0]})
        >>> change = {"op": "replace", "path": "/channels/0/samples/0/data/0", "value": 7.0}
        >>> workspace.patched([change]).to_dict()["channels"][0]["samples"][0]["data"]
        [7.0]
        """
        try:
            operations = patch if isinstance(patch, jsonpatch.JsonPatch) else jsonpatch.JsonPatch(list(patch))
            spec = operations.apply(copy.deepcopy(self._spec))
        except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException) as error:
            raise DataError(f"the patch does not fit this workspace: {error}; check its paths") from error
        return type(self)(spec)

    def patched_from(self, patch_set: Mapping[str, Any], key: str | Sequence[float | str]) -> Self:
        """Return the workspace with one patch of a pyhf patch set applied.

        Args:
            patch_set: the patch set as JSON; its digests must be those of this workspace.
            key: name of the patch, or its values.

        Raises:
            DataError: if the patch set is faulty, belongs to another workspace, or lacks the key.
        """
        try:
            patches = pyhf.PatchSet(dict(patch_set))
            patches.verify(self._spec)
            patch = patches[key if isinstance(key, str) else tuple(key)]
        except pyhf.exceptions.InvalidPatchLookup as error:
            known = ", ".join(repr(each.name) for each in patches)
            raise DataError(f"the patch set has no patch {key!r}; it has {known}") from error
        except (
            pyhf.exceptions.InvalidSpecification,
            pyhf.exceptions.InvalidPatchSet,
            pyhf.exceptions.PatchSetVerificationError,
        ) as error:
            raise DataError(
                f"the patch set cannot be used with this workspace: {error}; check its origin"
            ) from error
        return self.patched(patch)

    def model(
        self,
        measurement: str | None = None,
        *,
        poi: str | None = "",
        patches: Sequence[Patch] = (),
        normsys_code: str = "4",
        histosys_code: str = "4p",
    ) -> Model:
        """Build the model of a measurement, with its POI and parameter settings.

        Args:
            measurement: name of the measurement; the first one by default.
            poi: another POI than that of the measurement (the empty string), or ``None`` for a model
                without.
            patches: JSON patches of the workspace, applied in order.
            normsys_code, histosys_code: interpolation codes, by default those of pyhf.

        Raises:
            ParameterError: if the measurement or the POI does not exist.
            DataError: if templates are NaN, negative, or of unequal length, or a patch does not fit.
        """
        if patches:
            return self.patched(patches[0]).model(
                measurement,
                poi=poi,
                patches=patches[1:],
                normsys_code=normsys_code,
                histosys_code=histosys_code,
            )
        config = self._measurement(measurement)["config"]
        return Model(
            self.channels,
            poi=(config["poi"] or None) if poi == "" else poi,
            settings=[ParameterSettings(**each) for each in config["parameters"]],
            normsys_code=normsys_code,
            histosys_code=histosys_code,
        )

    def _measurement(self, name: str | None) -> dict[str, Any]:
        for each in self._spec["measurements"]:
            if name is None or each["name"] == name:
                found: dict[str, Any] = each
                return found
        known = ", ".join(map(repr, self.measurement_names))
        raise ParameterError(f"the workspace has no measurement {name!r}; it has {known}")

    def data(self, model: Model, include_auxiliary: bool = True) -> Tensor:
        """Return the observed data in the order of a model, followed by its auxiliary data.

        Raises:
            DataError: if the model has a channel that is not in the workspace.
        """
        counts = {each["name"]: each["data"] for each in self._spec["observations"]}
        missing = [name for name, _ in model.channels if name not in counts]
        if missing:
            raise DataError(
                f"channel {missing[0]!r} of the model has no observation in the workspace; add one"
            )
        main = torch.tensor(
            [value for name, _ in model.channels for value in counts[name]],
            dtype=torch.float64,
            device=model.device,
        )
        return torch.cat([main, model.auxiliary_data]) if include_auxiliary else main


def _check_modifiers(spec: Mapping[str, Any]) -> None:
    """Name an unknown modifier before the schema does, whose message lists all alternatives it failed."""
    channels = spec.get("channels")
    for channel in channels if isinstance(channels, list) else []:
        samples = channel.get("samples", ()) if isinstance(channel, dict) else ()
        for sample in samples if isinstance(samples, list) else ():
            modifiers = sample.get("modifiers", ()) if isinstance(sample, dict) else ()
            for modifier in modifiers if isinstance(modifiers, list) else ():
                kind = modifier.get("type") if isinstance(modifier, dict) else None
                if kind not in KINDS:
                    raise DataError(
                        f"channel {channel.get('name')!r}, sample {sample.get('name')!r} has a modifier of "
                        f"unknown type {kind!r} ({modifier}); known are {', '.join(KINDS)}"
                    )


def _check_schema(spec: Mapping[str, Any]) -> None:
    try:
        pyhf.schema.validate(spec, "workspace.json", version=spec.get("version"))
    except pyhf.exceptions.InvalidSpecification as error:
        cause = error.__cause__ or error.__context__
        path = list(getattr(cause, "absolute_path", ()))
        reason = getattr(cause, "message", str(error))
        raise DataError(
            f"{_place(spec, path)}: the workspace breaks pyhf's schema: {reason[:300]}; "
            "correct this entry (schema workspace.json, version 1.0.0)"
        ) from error
    except pyhf.exceptions.SchemaNotFound as error:
        raise DataError(
            f"no schema for version {spec.get('version')!r}; set the version to '1.0.0'"
        ) from error


def _place(spec: Mapping[str, Any], path: Sequence[str | int]) -> str:
    """Say where a schema error is, with names for indices: ``channel 'SR', sample 'signal', data``."""
    here: Any = spec
    words = []
    for step in path:
        here = here[step]
        if isinstance(step, str):
            words.append(step)
        else:
            name = here.get("name") if isinstance(here, dict) else None
            words[-1:] = [f"{words[-1].removesuffix('s')} {repr(name) if name else step}"]
    return ", ".join(words) or "top level"


def _check_observations(spec: Mapping[str, Any]) -> None:
    bins = {each["name"]: len(each["samples"][0]["data"]) for each in spec["channels"]}
    counts = {each["name"]: each["data"] for each in spec["observations"]}
    for name in counts:
        if name not in bins:
            raise DataError(f"the observation {name!r} has no channel; remove it or add the channel {name!r}")
    for name, n_bins in bins.items():
        if name not in counts:
            raise DataError(f"channel {name!r} has no observation; add its observed data, one count per bin")
        if len(counts[name]) != n_bins:
            raise DataError(
                f"channel {name!r} has {n_bins} bins but {len(counts[name])} observed counts; "
                "give one per bin"
            )
        for index, count in enumerate(counts[name]):
            if not (math.isfinite(count) and count >= 0):
                raise DataError(
                    f"channel {name!r}, bin {index}: observed {count}, expected a finite count of zero "
                    "or more; correct it"
                )
