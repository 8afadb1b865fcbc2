"""Medians of all rounds, as JSON, as a table and as a picture."""

from __future__ import annotations

import json
import platform
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median

OURS = "faasbase"
RATE = "records a second, one core"


@dataclass(frozen=True, slots=True)
class Result:
    """One figure of one contender in one round."""

    contender: str
    figure: str
    value: float


Medians = dict[str, dict[str, float]]
"""Figure, contender."""


def medians(results: list[Result]) -> Medians:
    """Return the median of each figure over the rounds, and our rate as a ratio to each of the others'."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for result in results:
        values[result.figure, result.contender].append(result.value)
    table: Medians = {}
    for (figure, contender), found in values.items():
        table.setdefault(figure, {})[contender] = median(found)
    rates = table[RATE]
    table["our rate by theirs"] = {name: rates[OURS] / rate for name, rate in rates.items() if name != OURS}
    return table


def write(results: list[Result], folder: Path) -> Medians:
    """Write ``events.json`` and ``events.png`` into *folder* and return the medians."""
    folder.mkdir(parents=True, exist_ok=True)
    table = medians(results)
    document = {
        "python": platform.python_version(),
        "medians": table,
        "rounds": [[r.contender, r.figure, r.value] for r in results],
    }
    (folder / "events.json").write_text(json.dumps(document, indent=1))
    _draw(table, folder / "events.png")
    return table


def text(table: Medians) -> str:
    """Return *table* for a terminal."""
    lines: list[str] = []
    for figure, by_contender in table.items():
        lines += ["", figure]
        lines += [f"  {contender:24} {value:12,.2f}" for contender, value in by_contender.items()]
    return "\n".join(lines)


def _draw(table: Medians, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(table), figsize=(6 * len(table), 2.6), squeeze=False)
    for axis, (name, by_contender) in zip(axes.flat, table.items(), strict=True):
        bars = axis.barh(list(by_contender), list(by_contender.values()))
        axis.bar_label(bars, fmt="{:,.2f}", padding=3, fontsize=8)
        axis.margins(x=0.2)
        axis.invert_yaxis()
        axis.set_title(name, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
