"""Choose an implementation by the scheme of a URL (``CACHE_URL``, ``STORAGE_URL``) and import only that one."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from .errors import SettingError


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
    options = dict(defaults)
    for name, text in parse_qsl(split_url(setting, url).query, keep_blank_values=True):
        if name not in defaults:
            raise SettingError(setting, f"takes only the options {', '.join(sorted(defaults)) or '(none)'}")
        if not (text.isascii() and text.isdigit() and int(text[:18]) > 0 and len(text) <= 18):
            raise SettingError(setting, f"option {name} must be a whole number from 1")
        options[name] = int(text)
    return options
