"""Where a function runs, as its environment tells: its name, where it is served, and what stands in front of it."""

import re
from typing import TypedDict
from urllib.parse import urlsplit

from .environment import Environment
from .errors import SettingError

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
# What Kubernetes makes names of: no vowels and nothing that looks like another letter.
_POD_SUFFIX = re.compile(r"-[bcdfghjklmnpqrstvwxz2456789]{6,10}-[bcdfghjklmnpqrstvwxz2456789]{5}$")
_DEFAULT_NAMESPACE = "openfaas-fn"
_WATCHDOG_METRICS_PORT = 8082


class Deployment(TypedDict):
    """The settings of these names."""

    function_name: str
    namespace: str | None
    root_path: str
    host: str
    metrics_host: str
    port: int
    metrics_port: int
    behind_watchdog: bool
    suppress_lock: bool


def read_deployment(read: Environment, port: int, metrics_port: int) -> Deployment:
    """
    Return where the function runs; *port* and *metrics_port* are those of a function that is told of none.

    Raises:
        SettingError: A setting cannot be used, or asks for what only of-watchdog does.
    """
    _refuse_foreign_duties(read)
    name, namespace = _function_name(read), read.text("OPENFAAS_NAMESPACE") or None
    listen_host = read.text("LISTEN_HOST")
    upstream = read.text("http_upstream_url", read.text("upstream_url"))
    host, port = _upstream(upstream) if upstream else (listen_host, read.port("port", port))
    return Deployment(
        function_name=name,
        namespace=namespace,
        root_path=read.parsed("ROOT_PATH", _root_path, _gateway_path(name, namespace)),
        host=host,
        metrics_host=listen_host,
        port=port,
        metrics_port=read.port("metrics_port", _WATCHDOG_METRICS_PORT if upstream else metrics_port),
        behind_watchdog=bool(upstream),
        # Behind of-watchdog `suppress_lock=true` tells *it* not to write the lock, because we do.
        suppress_lock=read.flag("suppress_lock") and not upstream,
    )


def is_standard(read: Environment) -> bool:
    """Tell OpenFaaS Standard, which names the function and fits the pod's grace period to its settings, from CE."""
    return bool(read.text("OPENFAAS_NAME")) and not read.text("termination_grace_period")


def path_of(text: str) -> str:
    """
    Return *text* if it is a path.

    Raises:
        ValueError: It is not.
    """
    if not text.startswith("/") or any(char.isspace() for char in text):
        raise ValueError("must be a path that starts with /")
    return text


def _refuse_foreign_duties(read: Environment) -> None:
    """Stop where of-watchdog would do something that this process does not: silence would be a hole."""
    if read.flag("jwt_auth"):
        raise SettingError(
            "jwt_auth",
            "is done by of-watchdog only: build the image in the shape behind of-watchdog",
        )
    if read.text("mode", "http") != "http":
        raise SettingError("mode", "only `http` is served; other modes need of-watchdog itself")


def _function_name(read: Environment) -> str:
    named = read.parsed("OPENFAAS_NAME", _function, "")
    if named:
        return named
    host = _POD_SUFFIX.sub("", read.text("HOSTNAME").lower())
    return host if _NAME.fullmatch(host) else "function"


def _function(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("must be lower-case letters, digits and hyphens")
    return text


def _gateway_path(name: str, namespace: str | None) -> str:
    return f"/function/{name}" if namespace in (None, _DEFAULT_NAMESPACE) else f"/function/{name}.{namespace}"


def _root_path(text: str) -> str:
    return "" if text == "/" else path_of(text).rstrip("/")


def _upstream(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise SettingError("upstream_url", "must be a URL with host and port, such as http://127.0.0.1:5000")
    return host, port
