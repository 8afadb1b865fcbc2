"""Put environment variables into a stack file's text, as faas-cli's ``--envsubst`` does (drone/envsubst's syntax)."""

from __future__ import annotations

import re
from collections.abc import Mapping

OPENING = re.compile(r"\$(?P<escape>\$)|\$\{(?P<name>\w+)(?P<operator>:-|:=|=|(?=\}))")
MARK = re.compile(r"\$\$|\$\{|\}")


class SubstitutionError(Exception):
    """A ``${...}`` of the stack file cannot be understood."""

    def __init__(self, expression: str) -> None:
        self.expression = expression
        super().__init__(f"{expression} is none of ${{NAME}}, ${{NAME:-default}} and ${{NAME=default}}")


def substitute(text: str, environ: Mapping[str, str]) -> str:
    """
    Replace ``${NAME}`` and ``${NAME:-default}`` in *text*; ``$$`` is a dollar sign, and ``$NAME`` stays as it is.

    A variable that is unset or empty takes the default, which may hold further expressions.
    """
    return _upto(text, 0, environ, inside=False)[0]


def _upto(text: str, start: int, environ: Mapping[str, str], *, inside: bool) -> tuple[str, int]:
    """Substitute from *start* to the end, or *inside* an expression to its brace; return where it ended."""
    parts: list[str] = []
    while mark := MARK.search(text, start):
        parts.append(text[start : mark.start()])
        if mark.group() == "}":
            if inside:
                return "".join(parts), mark.end()
            parts.append("}")
            start = mark.end()
            continue
        value, start = _expression(text, mark.start(), environ)
        parts.append(value)
    if inside:
        raise SubstitutionError(text[start:].splitlines()[0] + " (no closing brace)")
    return "".join(parts) + text[start:], len(text)


def _expression(text: str, start: int, environ: Mapping[str, str]) -> tuple[str, int]:
    opening = OPENING.match(text, start)
    if opening is None:
        raise SubstitutionError(text[start:].split("}")[0].splitlines()[0] + "}")
    if opening["escape"]:
        return "$", opening.end()
    default, end = _upto(text, opening.end(), environ, inside=True)
    return environ.get(opening["name"], "") or default, end
