"""Medians of all rounds, as JSON, as a table and as a picture."""

from __future__ import annotations

import json
import platform
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median

Medians = dict[str, dict[str, dict[str, float]]]
"""Scenario, figure, contender."""
_COLUMNS = 3


@dataclass(frozen=True, slots=True)
class Result:
    """One figure of one contender in one round."""

    scenario: str
    contender: str
    figure: str
    value: float


def medians(results: list[Result]) -> Medians:
    """Return the median of each figure over the rounds."""
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for result in results:
        values[result.scenario, result.figure, result.contender].append(result.value)
    table: Medians = {}
    for (scenario, figure, contender), found in values.items():
        table.setdefault(scenario, {}).setdefault(figure, {})[contender] = median(found)
    return table


def write(results: list[Result], table: Medians, folder: Path, name: str) -> None:
    """Write *name*.json, with all *results*, and *name*.png into *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "python": platform.python_version(),
        "medians": table,
        "rounds": [[r.scenario, r.contender, r.figure, r.value] for r in results],
    }
    (folder / f"{name}.json").write_text(json.dumps(document, indent=1))
    _draw(table, folder / f"{name}.png")


def text(table: Medians) -> str:
    """Return *table* for a terminal."""
    lines: list[str] = []
    for scenario, figures in table.items():
        lines += ["", scenario]
        for figure, by_contender in figures.items():
            lines.append(f"  {figure}")
            lines += [f"    {contender:24} {value:12,.2f}" for contender, value in by_contender.items()]
    return "\n".join(lines)


def _draw(table: Medians, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    panels = [(scenario, figure) for scenario, figures in table.items() for figure in figures]
    rows = -(-len(panels) // _COLUMNS)
    figure, axes = plt.subplots(rows, _COLUMNS, figsize=(6 * _COLUMNS, 2.6 * rows), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (scenario, name) in zip(axes.flat, panels, strict=False):
        by_contender = table[scenario][name]
        bars = axis.barh(list(by_contender), list(by_contender.values()))
        axis.bar_label(bars, fmt="{:,.2f}", padding=3, fontsize=8)
        axis.margins(x=0.2)
        axis.invert_yaxis()
        axis.set_title(f"{scenario}: {name}", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
