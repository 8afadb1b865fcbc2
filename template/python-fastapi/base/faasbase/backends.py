"""Choose an implementation by the scheme of a URL (``CACHE_URL``), import it alone, and read the URL's options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from importlib import import_module
from typing import Any, TypeVar
from urllib.parse import SplitResult, parse_qsl, urlsplit

from .durations import parse_duration
from .errors import SettingError

T = TypeVar("T")


def backend_of(setting: str, url: str, table: Mapping[str, str]) -> Any:
    """
    Import and return what *table* (scheme to ``"module:attribute"``) names for *url*.

    Raises:
        SettingError: The scheme is not in *table*.  The message never repeats the URL, which may hold a password.
    """
    scheme = split_url(setting, url).scheme
    if scheme not in table:
        known = ", ".join(f"{name}:" for name in sorted(table))
        raise SettingError(setting, f"must be a URL that starts with one of {known}")
    module, _, attribute = table[scheme].partition(":")
    return getattr(import_module(module), attribute)


def split_url(setting: str, url: str) -> SplitResult:
    """Split *url* as `urllib.parse.urlsplit` does, but complain by the setting's name."""
    try:
        return urlsplit(url)
    except ValueError:
        # urlsplit's own message may repeat the host part, password included.
        raise SettingError(setting, "is not a well-formed URL") from None


def counts_in_query(setting: str, url: str, defaults: Mapping[str, int]) -> dict[str, int]:
    """
    Return *defaults* with what the query of *url* (``?max_entries=500``) puts in their place.

    Raises:
        SettingError: An option is not in *defaults*, or is not a whole number from 1.
    """
    options = UrlOptions.of(setting, url, defaults.keys())
    return {name: options.count(name, default) for name, default in defaults.items()}


class UrlOptions:
    """
    The options in the query of a URL that is the value of *setting*; complaints name the option and never its value.

    Every method raises SettingError where the option cannot be used, and returns the default where it is not given.
    """

    def __init__(self, setting: str, texts: Mapping[str, str]) -> None:
        self._setting, self.texts = setting, texts

    @classmethod
    def of(cls, setting: str, url: str, known: Set[str]) -> UrlOptions:
        """
        Read the query of *url*.

        Raises:
            SettingError: An option is not in *known*, is empty, or is given twice.
        """
        pairs = parse_qsl(split_url(setting, url).query, keep_blank_values=True)
        texts = dict(pairs)
        if not texts.keys() <= known:
            raise SettingError(setting, f"takes only the options {', '.join(sorted(known)) or '(none)'}")
        if len(texts) < len(pairs) or not all(texts.values()):
            raise SettingError(setting, "has an option that is empty, or given more than once")
        return cls(setting, texts)

    def parsed(self, name: str, parse: Callable[[str], T], default: T) -> T:
        """Return what *parse* makes of the option; its ValueError must not repeat the text."""
        if name not in self.texts:
            return default
        try:
            return parse(self.texts[name])
        except ValueError as exc:
            raise SettingError(self._setting, f"option {name} {exc}") from None

    def count(self, name: str, default: int) -> int:
        """Return a whole number from 1."""
        return self.parsed(name, _count, default)

    def flag(self, name: str, default: bool) -> bool:
        return self.parsed(name, _flag, default)

    def seconds(self, name: str, default: float, *, least: float, most: float) -> float:
        """Return a duration from *least* to *most* seconds."""

        def bounded(text: str) -> float:
            try:
                seconds = parse_duration(text)
            except ValueError as exc:
                raise ValueError(f"is {exc}") from None
            if not least <= seconds <= most:
                raise ValueError(f"must be from {least:g}s to {most:g}s")
            return seconds

        return self.parsed(name, bounded, default)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and int(text) > 0):
        raise ValueError("must be a whole number from 1")
    return int(text)


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("must be true or false")
    return text.lower() == "true"
