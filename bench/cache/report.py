"""Medians of all rounds, as JSON, as a table and as a picture."""

from __future__ import annotations

import json
import platform
from collections import defaultdict
from pathlib import Path
from statistics import median

from .scenarios import Result

Medians = dict[str, dict[str, dict[str, float]]]
"""Scenario, figure, contender."""


def medians(results: list[Result]) -> Medians:
    """Return the median of each figure over the rounds."""
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for result in results:
        values[result.scenario, result.figure, result.contender].append(result.value)
    table: Medians = {}
    for (scenario, figure, contender), found in values.items():
        table.setdefault(scenario, {}).setdefault(figure, {})[contender] = median(found)
    return table


def write(results: list[Result], folder: Path) -> Medians:
    """Write ``cache.json`` and ``cache.png`` into *folder* and return the medians."""
    folder.mkdir(parents=True, exist_ok=True)
    table = medians(results)
    document = {
        "python": platform.python_version(),
        "medians": table,
        "rounds": [[r.scenario, r.contender, r.figure, r.value] for r in results],
    }
    (folder / "cache.json").write_text(json.dumps(document, indent=1))
    _draw(table, folder / "cache.png")
    return table


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
    columns = 3
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(6 * columns, 2.6 * rows), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (scenario, name) in zip(axes.flat, panels, strict=False):
        by_contender = table[scenario][name]
        bars = axis.barh(list(by_contender), list(by_contender.values()))
        axis.bar_label(bars, fmt="{:,.1f}", padding=3, fontsize=8)
        axis.margins(x=0.2)
        axis.invert_yaxis()
        axis.set_title(f"{scenario}: {name}", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
