"""
``python -m bench.images``: size, start and memory of each image, in rounds whose order changes.

Progress goes to stderr, a table to stdout, and everything to a JSON file.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deploy.images.engine import Engine, EngineError, find_engine
from deploy.images.project import ROOT
from deploy.images.standins import base_images

from .candidates import Compared, built, size_bytes
from .measuring import Sample, measure, pod

FOLDER = ROOT / "build" / "bench"
Samples = Mapping[str, Sequence[Sample]]
MEASURES = ("healthy_seconds", "answer_seconds", "start_cpu_seconds", "memory_bytes", "memory_after_calls_bytes")


def main() -> None:
    """Build, measure, and report."""
    options = _options()
    engine = find_engine(FOLDER / "engine")
    _progress("building")
    with built(engine, FOLDER, base_images(engine)) as compared:
        samples = _rounds(engine, compared, options.rounds, options.calls)
        result = _result(engine, compared, samples, options.calls)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=2) + "\n")
    sys.stdout.write(_table(result) + "\n")
    _progress(f"all samples: {options.json}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.images", description=__doc__)
    parser.add_argument("--rounds", type=int, default=6, help="lives of each image (%(default)s)")
    parser.add_argument("--calls", type=int, default=2000, help="calls in each life (%(default)s)")
    parser.add_argument("--json", type=Path, default=FOLDER / "images.json", help="where all goes (%(default)s)")
    return parser.parse_args()


def _rounds(engine: Engine, compared: Compared, rounds: int, calls: int) -> Samples:
    samples: dict[str, list[Sample]] = {candidate.name: [] for candidate in compared.candidates}
    with pod(engine, compared.python) as (holder, address):
        # Each comes after each other one equally often: what one leaves behind is nobody's gain or loss.
        orders = itertools.cycle(itertools.permutations(compared.candidates))
        for number, order in enumerate(itertools.islice(orders, rounds)):
            for candidate in order:
                sample = measure(engine, candidate, holder, address, calls)
                samples[candidate.name].append(sample)
                _progress(
                    f"round {number + 1} of {rounds}: {candidate.name} answers after {sample.answer_seconds:.2f} s"
                )
    return samples


def _result(engine: Engine, compared: Compared, samples: Samples, calls: int) -> dict[str, Any]:
    below = {name: size_bytes(engine, image) for name, image in (("python", compared.python), ("base", compared.base))}
    images = {}
    for candidate in compared.candidates:
        size = size_bytes(engine, candidate.image)
        images[candidate.name] = {
            "bytes": size,
            "bytes_over_python": size - below["python"],
            # What a second function adds to a machine that has the first.
            "bytes_of_its_own": size - below["base" if candidate.name.startswith("ours") else "python"],
            **_medians(samples[candidate.name]),
            "ratios_to_ours_direct": _ratios(samples, candidate.name),
            "samples": [asdict(sample) for sample in samples[candidate.name]],
        }
    machine = {"cpus": os.cpu_count(), "engine": engine.program, "kernel": platform.release()}
    return {"machine": machine, "python_image": compared.python, "calls": calls, "bytes": below, "images": images}


def _medians(samples: Sequence[Sample]) -> dict[str, Any]:
    def of(measure_name: str, choose: Callable[[Sequence[float]], float]) -> float:
        return choose([getattr(sample, measure_name) for sample in samples])

    names = ("engine_seconds", *MEASURES)
    return {name: {"median": of(name, statistics.median), "min": of(name, min)} for name in names}


def _ratios(samples: Samples, name: str) -> dict[str, float]:
    """Return the median of the rounds' ratios: what slows a round slows all that is measured in it."""
    pairs = list(zip(samples[name], next(iter(samples.values())), strict=True))
    return {
        measure_name: statistics.median(
            getattr(own, measure_name) / getattr(first, measure_name) for own, first in pairs
        )
        for measure_name in MEASURES
    }


def _table(result: Mapping[str, Any]) -> str:
    heads = ("", "size MB", "own MB", "healthy s", "(min)", "answer s", "(min)", "CPU s", "memory MB", "after calls")
    rows = [heads, *(_row(name, image) for name, image in result["images"].items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    return "\n".join("  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)


def _row(name: str, image: Mapping[str, Any]) -> tuple[str, ...]:
    healthy, answer = image["healthy_seconds"], image["answer_seconds"]
    return (
        name,
        f"{image['bytes'] / 1e6:.0f}",
        f"{image['bytes_of_its_own'] / 1e6:.2f}",
        *(f"{seconds:.2f}" for seconds in (healthy["median"], healthy["min"], answer["median"], answer["min"])),
        f"{image['start_cpu_seconds']['median']:.2f}",
        f"{image['memory_bytes']['median'] / 1e6:.1f}",
        f"{image['memory_after_calls_bytes']['median'] / 1e6:.1f}",
    )


def _progress(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    try:
        main()
    except EngineError as exc:
        sys.exit(str(exc))
