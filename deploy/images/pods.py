"""Containers as closed as the pods of OpenFaaS's functions, with Kubernetes' limits and an ``emptyDir`` at ``/tmp``."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from .engine import Engine

USER = 12000
UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "k": 10**3, "M": 10**6, "G": 10**9}


def pod_options(
    engine: Engine,
    name: str,
    tmp: Path,
    *,
    limits: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    network: str = "bridge",
) -> list[str]:
    """Return the engine's options for a container called *name* that is as closed as a pod of OpenFaaS."""
    options = ["--name", name, "--network", network, "--volume", f"{tmp}:/tmp", "--read-only"]
    if engine.program == "podman":
        # Its own writable folders would hide what the function writes.
        options.append("--read-only-tmpfs=false")
    options += ["--user", f"{USER}:{USER}", "--cap-drop=ALL", "--security-opt", "no-new-privileges"]
    # Kubernetes has probes of its own and takes no notice of the image's.
    options.append("--no-healthcheck")
    options += [flag for name, value in (env or {}).items() for flag in ("--env", f"{name}={value}")]
    return options + limit_options(limits or {})


def limit_options(limits: Mapping[str, str]) -> list[str]:
    """Return the engine's options for Kubernetes' *limits*: no swap either."""
    options = []
    if memory := limits.get("memory"):
        options += [f"--memory={quantity(memory)}b", f"--memory-swap={quantity(memory)}b"]
    if cpu := limits.get("cpu"):
        options.append(f"--cpus={float(cpu[:-1]) / 1000 if cpu.endswith('m') else float(cpu)}")
    return options


def quantity(text: str) -> int:
    """Return the bytes of a quantity of memory in Kubernetes' notation."""
    unit = next((unit for unit in UNITS if text.endswith(unit)), "")
    return int(float(text.removesuffix(unit)) * UNITS.get(unit, 1))


def remove(engine: Engine, name: str) -> None:
    """Remove the container called *name* in whatever state it is, without giving it time to end."""
    patience = ("--time", "0") if engine.program == "podman" else ()
    engine.run("rm", "--force", *patience, name, check=False)


@contextlib.contextmanager
def empty_dir() -> Iterator[Path]:
    """Make a folder that everyone may write, as the kubelet makes an emptyDir, and remove it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="empty-dir-"))
    folder.chmod(0o1777)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
