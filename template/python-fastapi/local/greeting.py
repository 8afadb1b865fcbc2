"""What the terminal shows when everything runs: addresses, and for each function a curl to paste."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from deployments import Deployment

DOCUMENTED_URLS = ("http://127.0.0.1:8080", "http://localhost:8080")


def greeting(url: str, deployments: Iterable[Deployment]) -> str:
    """Return the lines to print, for a gateway at *url*."""
    lines = ["", f"gateway    {url}    (faas-cli list --gateway {url})"]
    for deployment in deployments:
        name = deployment.function.name
        lines += ["", f"{name}    {url}/function/{name}"]
        if deployment.error is not None:
            lines.append("  does not start yet, see above: mend it, and it is tried again")
        else:
            lines.append(f"  {_curl(url, name, deployment.function.handler / 'README.md')}")
    return "\n".join([*lines, "", "Ctrl-C stops everything; a change of code starts it anew.", ""])


def _curl(url: str, name: str, readme: Path) -> str:
    """Return the first curl of the function's README, which knows what the function takes, or a plain one."""
    if not readme.is_file():
        return f"curl -s {url}/function/{name}"
    command = _first_curl(readme.read_text()) or f"curl -s {url}/function/{name}"
    for documented in DOCUMENTED_URLS:
        command = command.replace(documented, url)
    return command


def _first_curl(text: str) -> str | None:
    """Return the first line of a fenced block that begins with ``curl``, and what it is continued by."""
    lines = iter(text.splitlines())
    fenced = False
    for line in lines:
        fenced ^= line.startswith("```")
        command = line.removeprefix("$ ")
        if fenced and command.startswith("curl "):
            while command.endswith("\\"):
                command += "\n" + next(lines, "")
            return command
    return None
