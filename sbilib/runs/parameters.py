r"""The parameters of a study: how its one ``parameters`` cell is written, read and checked.

The cell is tagged ``parameters`` and holds nothing but lines of the form ::

    name: type = literal  # meaning [unit] (cost: effect on run time and memory)

- ``type`` is ``int``, ``float``, ``str``, ``bool``, ``list[int]``, ``list[float]`` or ``list[str]``.
- ``literal`` is a plain Python literal of that type; no names, no arithmetic.
- ``meaning`` says what the parameter is, in words a reader of the page understands.
- ``unit`` is a unit (``rad``, ``events``), ``1`` for a pure number, or ``one of: a, b, c`` for a
  closed choice, which is then enforced before the study starts.
- ``cost`` says how run time or memory change with it, or ``none``.

A comment too long for one line starts on the lines right above the assignment; all its lines are
joined.  One parameter is called ``seed`` and is an ``int``.  An example::

    seed: int = 1  # random seed of data, weights and batches [1] (cost: none)
    case: str = "large"  # distance of the two Gaussians [one of: large, small] (cost: none)
    # training events of each component, drawn anew for every model
    n_train: int = 1_000_000  # [events] (cost: training time is proportional)
"""

from __future__ import annotations

import ast
import io
import json
import math
import re
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from sbilib.errors import ParameterError, StudyError

__all__ = ["Parameter", "Value", "format_value", "parse_parameters", "unknown_name_message"]

Scalar = int | float | str | bool
Value = Scalar | list[int] | list[float] | list[str]

_TYPES = ("int", "float", "str", "bool", "list[int]", "list[float]", "list[str]")
_COMMENT = re.compile(r"^(?P<meaning>\S.*?)\s*\[(?P<unit>[^\]]+)\]\s*\(cost:\s*(?P<cost>.*\S)\s*\)$")
_FORM = "name: type = literal  # meaning [unit] (cost: effect)"


@dataclass(frozen=True)
class Parameter:
    """One parameter of a study, with everything the catalog says about it."""

    name: str
    type: str
    """``int``, ``float``, ``str``, ``bool``, or ``list[...]`` of the first three."""
    default: Value
    meaning: str
    unit: str
    """A unit, ``1``, or ``one of: a, b``."""
    cost: str
    """How run time or memory change with it."""

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed values of a closed choice, else empty."""
        head, _, rest = self.unit.partition(":")
        return tuple(part.strip() for part in rest.split(",")) if head.strip() == "one of" else ()

    def check(self, value: object, origin: str) -> Value:
        """Return ``value`` as this parameter's type.

        Args:
            value: what was given; an ``int`` is accepted where a ``float`` is expected.
            origin: where it came from, for the message.

        Raises:
            ParameterError: if it is of another type, not finite, or not one of the choices.

        >>> Parameter("seed", "int", 1, "random seed", "1", "none").check("abc", "-p seed=abc")
        Traceback (most recent call last):
        ...
        sbilib.errors.ParameterError: -p seed=abc: parameter 'seed' must be int (like 1), got 'abc'
        """
        inner = self.type.removeprefix("list[").removesuffix("]")
        if inner == self.type:
            checked: Value | None = _check_scalar(value, inner)
        elif isinstance(value, list | tuple):
            items = [_check_scalar(item, inner) for item in value]
            checked = None if None in items else items  # type: ignore[assignment]
        else:
            checked = None
        if checked is None:
            raise ParameterError(
                f"{origin}: parameter {self.name!r} must be {self.type} (like {self.default!r}), "
                f"got {value!r}"
            )
        for item in checked if isinstance(checked, list) else [checked]:
            if self.choices and str(item) not in self.choices:
                raise ParameterError(
                    f"{origin}: parameter {self.name!r} must be one of {', '.join(self.choices)}, "
                    f"got {item!r}"
                )
        return checked

    def parse(self, text: str) -> Value:
        """Read a value typed on the command line.

        Args:
            text: the part after ``=`` in ``-p name=value``; whole numbers may be written ``1_000`` or
                ``1e3``, truth values ``true`` or ``false``, lists as ``[0.1, 0.2]``.

        Raises:
            ParameterError: if it does not read as this parameter's type.

        >>> Parameter("n", "int", 10, "events", "events", "none").parse("1e3")
        1000
        """
        origin = f"-p {self.name}={text}"
        if self.type == "str":
            return self.check(text, origin)
        plain = text.strip()
        if self.type == "bool":
            return self.check({"true": True, "false": False}.get(plain.lower(), text), origin)
        try:
            value: object = ast.literal_eval(plain)
        except (ValueError, SyntaxError):
            value = text
        if self.type == "int" and isinstance(value, float) and value.is_integer():
            value = int(value)
        return self.check(value, origin)


def _check_scalar(value: object, type_name: str) -> Scalar | None:
    """Return ``value`` as ``type_name``, or None if it is something else."""
    if type_name == "float":
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        return None
    if type_name == "bool":
        return value if isinstance(value, bool) else None
    if type_name == "int":
        return value if isinstance(value, int) and not isinstance(value, bool) else None
    return value if isinstance(value, str) else None


def unknown_name_message(kind: str, name: str, valid: Iterable[str]) -> str:
    """Say that ``name`` is unknown, which close ones exist, and all valid ones.

    >>> unknown_name_message("study", "gausian", ["gaussian", "truth"])
    "unknown study 'gausian'; did you mean 'gaussian'? Valid: gaussian, truth"
    """
    names = list(valid)
    close = get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else "."
    return f"unknown {kind} {name!r}{hint} Valid: {', '.join(names) if names else 'none'}"


def _comments(source: str) -> tuple[dict[int, str], set[int]]:
    """Comment text by line number, and the lines that hold nothing else."""
    texts: dict[int, str] = {}
    alone: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            line = token.start[0]
            texts[line] = token.string.lstrip("#").strip()
            if not token.line[: token.start[1]].strip():
                alone.add(line)
    return texts, alone


def parse_parameters(source: str, where: str) -> tuple[Parameter, ...]:
    """Read the source of a ``parameters`` cell (its form: see the top of this module).

    Args:
        source: the text of the cell.
        where: name of the notebook, for messages.

    Raises:
        StudyError: if a line does not follow the form; the message names the line.

    >>> cell = "seed: int = 1  # random seed [1] (cost: none)"
    >>> parse_parameters(cell, "demo")[0].meaning
    'random seed'
    """
    try:
        nodes = ast.parse(source).body
        texts, alone = _comments(source)
    except (SyntaxError, tokenize.TokenError) as error:
        raise StudyError(f"{where}: the parameters cell is not valid Python: {error}") from error
    lines = source.splitlines()
    parameters = []
    for node in nodes:
        written = lines[node.lineno - 1].strip()
        place = f"{where}: parameters cell, line {node.lineno} ({written!r})"
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value):
            raise StudyError(f"{place} must have the form '{_FORM}'")
        type_name = ast.unparse(node.annotation)
        if type_name not in _TYPES:
            raise StudyError(f"{place} has type {type_name!r}; use one of {', '.join(_TYPES)}")
        try:
            default = ast.literal_eval(node.value)
        except ValueError as error:
            raise StudyError(f"{place} must have a plain literal as its value") from error
        first = node.lineno
        while first - 1 in alone:
            first -= 1
        own = [texts[line] for line in range(first, node.lineno)] + [texts.get(node.end_lineno or 0, "")]
        match = _COMMENT.match(" ".join(part for part in own if part))
        if match is None:
            raise StudyError(f"{place} must have a comment of the form '# meaning [unit] (cost: effect)'")
        fields = {key: text.strip() for key, text in match.groupdict().items()}
        parameter = Parameter(node.target.id, type_name, default, **fields)
        parameters.append(_replace_default(parameter, parameter.check(default, place)))
    names = [parameter.name for parameter in parameters]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise StudyError(f"{where}: parameter {repeated[0]!r} is set twice in the parameters cell")
    return tuple(parameters)


def _replace_default(parameter: Parameter, default: Value) -> Parameter:
    """The same parameter with its default in its declared type (1 becomes 1.0 for a float)."""
    values = {**parameter.__dict__, "default": default}
    return Parameter(**values)


def format_value(value: Value) -> str:
    """A value as it would be typed after ``-p name=``.

    >>> format_value([0.1, 0.2]), format_value(1000000), format_value("large")
    ('[0.1, 0.2]', '1000000', 'large')
    """
    return value if isinstance(value, str) else json.dumps(value)
