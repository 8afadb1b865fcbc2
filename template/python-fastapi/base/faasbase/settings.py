"""Read a function's settings from its environment, once, at start: every bad value stops the start by name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from .deployment import is_standard, path_of, read_deployment
from .environment import Environment
from .errors import SettingError
from .event_policy import EventsPolicy, read_events_policy
from .fetching.policy import FetchPolicy, read_policy

_WATCHDOG_MARGIN_SECONDS = 1.0
_RESERVE_SECONDS = 4.0
"""Of the grace period: for what comes after the calls: lifespan, last spans, the exit itself."""
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

GRACE_PERIOD_CE_SECONDS = 30.0
"""What Kubernetes gives a pod between SIGTERM and SIGKILL when nobody sets it, as OpenFaaS CE does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one function process; durations are in seconds, sizes in bytes."""

    function_name: str = "function"
    """``OPENFAAS_NAME`` (OpenFaaS Standard), else the host name without its pod suffix (CE), else ``function``."""
    namespace: str | None = None
    """``OPENFAAS_NAMESPACE``; only OpenFaaS Standard and ``faas-cli local-run`` tell it."""
    root_path: str = ""
    """Where the gateway serves the function, for links and ``/docs``: ``/function/<name>[.<namespace>]``."""
    host: str = ""
    """Address for calls: ``LISTEN_HOST``, or that of ``upstream_url``; empty is every address of both families."""
    metrics_host: str = ""
    """``LISTEN_HOST``: also behind of-watchdog, where calls come over the loopback, Prometheus comes from outside."""
    port: int = 8080
    metrics_port: int = 8081
    """of-watchdog's own port is 8081 and cannot be moved, hence 8082 behind it."""
    behind_watchdog: bool = False
    """True when ``upstream_url`` is set: of-watchdog is in front and does its duties itself."""
    watchdog_port: int = 8080
    """Where of-watchdog listens, if it is there."""
    read_timeout: float = 20.0
    """Longest time that one request's headers and body may take to arrive."""
    write_timeout: float = 21.0
    """Longest life of a request or stream, and what in-flight work is given after the drain window."""
    exec_timeout: float = 20.0
    """Longest run of a handler before 504; ``X-Timeout`` may shorten it; 0 leaves only `write_timeout`."""
    healthcheck_interval: float = 5.0
    """How long calls are still taken after SIGTERM, since routers learn of it late."""
    termination_grace_period: float = GRACE_PERIOD_CE_SECONDS
    """The pod's time between SIGTERM and SIGKILL: 30 s on CE, `write_timeout` on Standard, which fits it to that."""
    max_inflight: int = 0
    """Calls at a time before 429; 0 is no limit."""
    max_body_bytes: int = 32 * 1024 * 1024
    max_header_bytes: int = 64 * 1024
    """Request line and headers together; of-watchdog allows 1 MiB, more than a hostile client should cost."""
    ready_path: str | None = None
    """A path of the function that `/_/ready` asks, beside its ``ready()``."""
    lock_path: Path = Path("/tmp/.lock")  # noqa: S108 - of-watchdog's own path, which probes look for
    suppress_lock: bool = False
    log_level: str = "INFO"
    access_log: bool = True
    """One log line a call, as of-watchdog writes; health probes are left out."""
    redact_fields: tuple[str, ...] = ()
    """Names of log fields whose values are hidden, beside the usual ones (``LOG_REDACT=iban,email``)."""
    docs_enabled: bool = True
    """Whether ``/docs``, ``/redoc`` and ``/openapi.json`` are served."""
    propagate_headers: tuple[str, ...] = ("x-request-id", "x-user-type")
    """Headers of a call that travel along a chain of calls."""
    # URLs may hold a password.
    cache_url: str = field(default="memory://", repr=False)
    idempotency_url: str = field(default="", repr=False)
    """Where `@idempotent` keeps its records; empty is the Redis of `cache_url`, and otherwise nowhere."""
    storage_url: str = field(default="file:///tmp/objects", repr=False)
    secrets_dir: Path = Path("/var/openfaas/secrets")
    auth_bearer_secrets: tuple[str, ...] = ()
    """``AUTH_BEARER_SECRET``: names of secrets, one of which every caller shows as a bearer token."""
    auth_signature_secrets: tuple[str, ...] = ()
    """``AUTH_SIGNATURE_SECRET``: names of secrets, with one of which every caller signs; with both, either will do."""
    fetching: FetchPolicy = field(default_factory=FetchPolicy)
    """``FETCH_*``: what may be fetched for strangers, and how much of it."""
    tracing_enabled: bool = False
    """True when an OTLP endpoint is set and OpenTelemetry's own switches do not turn it off."""
    events: EventsPolicy = field(default_factory=EventsPolicy)
    """``EVENTS_*`` and ``PUBLISH_*``: where events come from and go to."""

    @property
    def qualified_name(self) -> str:
        """Name and namespace, by which what functions keep on shared servers is told apart."""
        return f"{self.namespace}.{self.function_name}" if self.namespace else self.function_name

    def ahead_of_watchdog(self, seconds: float) -> float:
        """Return a limit that ends before of-watchdog's of the same length, which would cut our answer half-way."""
        return seconds - min(0.1, seconds / 10) if self.behind_watchdog else seconds

    @property
    def drain_timeout(self) -> float:
        """Seconds that in-flight work gets after the window, so that the exit still comes before SIGKILL."""
        left = self.termination_grace_period - self.window_seconds - self.reserve_seconds
        return max(0.0, min(self.write_timeout, left))

    @property
    def window_seconds(self) -> float:
        """
        Seconds that calls are taken after SIGTERM: `healthcheck_interval`, where the pod lives that long.

        of-watchdog begins its own window at the same signal and may hand on a call at its very end.
        """
        wanted = self.healthcheck_interval + (_WATCHDOG_MARGIN_SECONDS if self.behind_watchdog else 0.0)
        return max(0.0, min(wanted, self.termination_grace_period - self.reserve_seconds))

    @property
    def reserve_seconds(self) -> float:
        """Seconds kept for what comes after the calls; less where the grace period is short."""
        return min(_RESERVE_SECONDS, self.termination_grace_period / 4)


def load_settings(environ: Mapping[str, str]) -> Settings:
    """
    Read *environ* into settings.

    Raises:
        SettingError: A value cannot be used; it carries the setting's name and never its value.
    """
    read = Environment(environ)
    defaults = Settings()
    deployment = read_deployment(read, defaults.port, defaults.metrics_port)
    settings = Settings(
        **deployment,
        watchdog_port=read.port("port", defaults.watchdog_port),
        **_timeouts(read, defaults),
        max_inflight=read.count("max_inflight", defaults.max_inflight),
        max_body_bytes=read.count("MAX_BODY_BYTES", defaults.max_body_bytes),
        max_header_bytes=read.count("MAX_HEADER_BYTES", defaults.max_header_bytes),
        ready_path=read.parsed("ready_path", path_of, None),
        lock_path=Path(read.text("TMPDIR", "/tmp")) / ".lock",  # noqa: S108 - as Go's os.TempDir
        log_level=read.parsed("LOG_LEVEL", _level, defaults.log_level),
        access_log=read.flag("ACCESS_LOG", not deployment["behind_watchdog"]),
        redact_fields=read.names("LOG_REDACT", ()),
        docs_enabled=read.flag("DOCS_ENABLED", True),
        propagate_headers=read.names("PROPAGATE_HEADERS", defaults.propagate_headers),
        cache_url=read.text("CACHE_URL", defaults.cache_url),
        idempotency_url=read.text("IDEMPOTENCY_URL"),
        storage_url=read.text("STORAGE_URL", defaults.storage_url),
        secrets_dir=Path(read.text("FAAS_SECRETS_DIR", str(defaults.secrets_dir))),
        auth_bearer_secrets=read.secrets("AUTH_BEARER_SECRET"),
        auth_signature_secrets=read.secrets("AUTH_SIGNATURE_SECRET"),
        fetching=read_policy(read),
        tracing_enabled=_tracing_enabled(read),
        events=read_events_policy(read),
    )
    _check_end(read, settings)
    return settings


class _Timeouts(TypedDict):
    read_timeout: float
    write_timeout: float
    exec_timeout: float
    healthcheck_interval: float
    termination_grace_period: float


def _timeouts(read: Environment, defaults: Settings) -> _Timeouts:
    write_timeout = read.seconds("write_timeout", defaults.write_timeout)
    if write_timeout == 0:
        raise SettingError("write_timeout", "must be over 0s")
    grace_period = _grace_period(read, write_timeout)
    window = min(defaults.healthcheck_interval, grace_period / 4)
    return _Timeouts(
        read_timeout=read.seconds("read_timeout", defaults.read_timeout),
        write_timeout=write_timeout,
        exec_timeout=read.seconds("exec_timeout", defaults.exec_timeout),
        healthcheck_interval=read.seconds("healthcheck_interval", window),
        termination_grace_period=grace_period,
    )


def _grace_period(read: Environment, write_timeout: float) -> float:
    seconds = read.seconds("termination_grace_period", write_timeout if is_standard(read) else GRACE_PERIOD_CE_SECONDS)
    if seconds == 0:
        raise SettingError("termination_grace_period", "must be over 0s")
    return seconds


def _check_end(read: Environment, settings: Settings) -> None:
    """Refuse a window that SIGKILL would end: every call in flight would be lost at each restart."""
    if is_standard(read):
        return
    if settings.healthcheck_interval + settings.reserve_seconds > settings.termination_grace_period:
        raise SettingError(
            "healthcheck_interval",
            f"leaves nothing of the {settings.termination_grace_period:g} s between SIGTERM and SIGKILL for calls in "
            "flight; where the pod has more, say so in termination_grace_period",
        )


def _tracing_enabled(read: Environment) -> bool:
    endpoint = read.text("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", read.text("OTEL_EXPORTER_OTLP_ENDPOINT"))
    off = read.flag("OTEL_SDK_DISABLED") or read.text("OTEL_TRACES_EXPORTER", "otlp") == "none"
    return bool(endpoint) and not off


def _level(text: str) -> str:
    if text.upper() not in _LEVELS:
        raise ValueError(f"must be one of {', '.join(_LEVELS)}")
    return text.upper()
