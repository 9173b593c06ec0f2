"""A tiny repository with one study, for tests of running and publishing."""

from __future__ import annotations

import textwrap
from pathlib import Path

NOTEBOOK = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

(coin)=
# A biased coin

How often does it show heads?

```{code-cell} ipython3
:tags: [parameters]

seed: int = 1  # random seed [1] (cost: none)
# how often the coin is thrown,
# in one experiment
n_throws: int = 100  # [throws] (cost: run time is proportional)
bias: float = 0.5  # probability of heads [1] (cost: none)
side: str = "heads"  # side that is counted [one of: heads, tails] (cost: none)
kinds: list[str] = ["fair"]  # kinds of coins [1] (cost: none)
verbose: bool = False  # whether to say more [1] (cost: none)
```

```{code-cell} ipython3
import os
import random
import sys
import time

print("a progress bar", file=sys.stderr)
rng = random.Random(seed)
print("heads:", sum(rng.random() < bias for _ in range(n_throws)))
```

Then it ends.

```{code-cell} ipython3
:tags: [last]

if bias > 1:
    from sbilib.likelihood import nll  # never run: the library of this repository is not installed

    raise ValueError(f"bias must be in [0, 1], got {bias}")
if "killed" in kinds:
    os._exit(9)
if "slow" in kinds:
    print("waiting", flush=True)
    time.sleep(60)
if "leaky" in kinds:
    print(os.getcwd())
```
"""

LIBRARY = {
    "__init__.py": "",
    "cli.py": "print(1)\n",
    "likelihood/__init__.py": (
        "from sbilib.likelihood.nll import nll\nfrom sbilib.likelihood.scan import scan\n"
    ),
    "likelihood/nll.py": "def nll():\n    from sbilib.likelihood import grid\n\n    return 1\n",
    "likelihood/grid.py": "POINTS = 2\n",
    "likelihood/scan.py": "def scan():\n    return 3\n",
}
"""A library of which the study uses ``nll`` and, through it, ``grid``."""

SETS = """\
smoke: {n_throws: 10}
standard: {}
full: {n_throws: 1000, bias: 1}
"""


def make_repository(root: Path, notebook: str = NOTEBOOK, sets: str = SETS) -> Path:
    """Lay down a repository with the study ``coin``."""
    (root / "notebooks" / "params").mkdir(parents=True)
    (root / "pyproject.toml").write_text("", encoding="utf-8")
    (root / "requirements.lock").write_text("numpy==2.0\n", encoding="utf-8")
    (root / "notebooks" / "coin.md").write_text(notebook, encoding="utf-8")
    (root / "notebooks" / "params" / "coin.yml").write_text(sets, encoding="utf-8")
    package = root / "sbilib"
    (package / "likelihood").mkdir(parents=True)
    for name, code in LIBRARY.items():
        (package / name).write_text(code, encoding="utf-8")
    return root


def edit(path: Path, old: str, new: str) -> None:
    """Replace a text in a file that must contain it."""
    text = path.read_text(encoding="utf-8")
    if old not in text:
        raise LookupError(textwrap.shorten(old, 60))
    path.write_text(text.replace(old, new), encoding="utf-8")
