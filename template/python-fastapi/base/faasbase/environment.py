"""Read typed values from an environment; every complaint carries the setting's name and never its value."""

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from .durations import parse_duration
from .errors import SettingError
from .secret_files import secret_name

T = TypeVar("T")

_FLAGS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}


class Environment:
    """Looks settings up in an environment; every complaint carries the setting's name and never its value."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def parsed(self, name: str, parse: Callable[[str], T], default: T) -> T:
        """Return what *parse* makes of the setting, or *default* where it is unset or empty."""
        text = self._environ.get(name, "").strip()
        if not text:
            return default
        try:
            return parse(text)
        except ValueError as exc:
            raise SettingError(name, str(exc)) from None

    def text(self, name: str, default: str = "") -> str:
        return self.parsed(name, str, default)

    def seconds(self, name: str, default: float) -> float:
        """Return a duration that is not negative, in seconds."""
        return self.parsed(name, _positive(parse_duration), default)

    def count(self, name: str, default: int) -> int:
        """Return a whole number that is not negative."""
        return self.parsed(name, _positive(_integer), default)

    def port(self, name: str, default: int) -> int:
        return self.parsed(name, _port, default)

    def flag(self, name: str, default: bool = False) -> bool:
        return self.parsed(name, _flag, default)

    def names(self, name: str, default: tuple[str, ...]) -> tuple[str, ...]:
        """Return a list written with commas, in lower case."""
        return self.parsed(name, _names, default)

    def secrets(self, name: str) -> tuple[str, ...]:
        """Return the names of secrets, written with commas."""
        return self.parsed(name, _secret_names, ())


def _positive(parse: Callable[[str], T]) -> Callable[[str], T]:
    def checked(text: str) -> T:
        value = parse(text)
        if value < 0:  # type: ignore[operator]
            raise ValueError("must not be negative")
        return value

    return checked


def _integer(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII):
        raise ValueError("must be a whole number")
    return int(text)


def _port(text: str) -> int:
    number = _integer(text)
    if not 0 < number < 65536:
        raise ValueError("must be a port from 1 to 65535")
    return number


def _flag(text: str) -> bool:
    if text.lower() not in _FLAGS:
        raise ValueError("must be true or false")
    return _FLAGS[text.lower()]


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip().lower() for part in text.split(",") if part.strip())


def _secret_names(text: str) -> tuple[str, ...]:
    return tuple(secret_name(part.strip()) for part in text.split(",") if part.strip())
