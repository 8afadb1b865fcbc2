"""``EVENTS_*`` and ``PUBLISH_*``: where events come from, where they go, and how patient both are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .environment import Environment
from .errors import SettingError
from .resilience import backoff

SOURCES = ("http", "kafka", "memory", "nats")
_ORDERS = ("key", "none")
_MODES = ("binary", "structured")
_UNKNOWN = ("reject", "ignore")


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsPolicy:
    """Settings of events; durations are in seconds."""

    # URLs may hold a password.
    urls: tuple[str, ...] = field(default=("http:",), repr=False)
    """``EVENTS_URL``, with commas between several; credentials are secrets that a URL names, as Redis' does."""
    publish_url: str = field(default="", repr=False)
    """``PUBLISH_URL``: where `publish` sends events."""
    publish_mode: str = "binary"
    """``binary``: CloudEvents attributes are headers; ``structured``: the whole event is JSON."""
    publish_timeout: float = 10.0
    publish_secrets: tuple[str, ...] = ()
    """``PUBLISH_SECRET``: names of secrets; what is published over HTTP is signed with each that is there."""
    deadletter_url: str = field(default="", repr=False)
    """``DEADLETTER_URL``: where dead letters go; empty is beside the source, over HTTP nowhere."""
    http_public: bool = False
    http_secrets: tuple[str, ...] = ()
    """``EVENTS_HTTP_SECRET``: names of secrets; a pusher shows one as a bearer token, or signs with it."""
    http_tolerance: float = 24 * 3600.0
    """How old a pushed event's signature may be: it is made once, and the event may wait in a queue."""
    max_attempts: int = 10
    """How often an event is tried before it is a dead letter."""
    max_age: float = 0.0
    """How old an event may grow before it is a dead letter instead of tried again; 0 is no limit."""
    retry_base: float = 1.0
    """What the first repeat waits at most; doubled each time."""
    retry_cap: float = 300.0
    timeout: float = 60.0
    """How long one run of a handler may take, a `def` from when it has a thread; 0 is no limit."""
    unknown: str = "reject"
    """What becomes of a type that no handler takes: ``reject`` makes it a dead letter, ``ignore`` settles it."""
    order: str = "key"
    """``key``: events of one key one after the other; ``none``: in no order."""
    lanes: int = 8
    """How many events are handled at a time, on Kafka in each partition; those of a list are not counted."""
    max_uncommitted: int = 1000
    """
    How far, in messages, handling may be ahead of the first unsettled one, on Kafka in each partition.

    There no more are taken either while 16 MiB of unsettled ones are in memory.
    """
    commit_interval: float = 1.0
    session_timeout: float = 10.0
    """How long a replica may be silent, on Kafka, before others are given what it has; brokers allow 6 s or more."""
    start_timeout: float = 30.0
    """How long the broker may take to answer at start."""

    @property
    def http(self) -> bool:
        """Whether events may be pushed over HTTP."""
        return any(url.partition(":")[0] == "http" for url in self.urls)

    @property
    def pulled(self) -> tuple[str, ...]:
        """The URLs that this process fetches events from itself."""
        return tuple(url for url in self.urls if url.partition(":")[0] != "http")

    def pause_before(self, attempt: int) -> float:
        """Return how long to wait before *attempt*, the second being the first repeat."""
        return backoff(attempt - 2, self.retry_base, self.retry_cap)


def read_events_policy(read: Environment) -> EventsPolicy:
    """
    Read the settings of events.

    Raises:
        SettingError: A value cannot be used; it carries the setting's name and never its value.
    """
    defaults = EventsPolicy()
    policy = EventsPolicy(
        urls=read.parsed("EVENTS_URL", _urls, defaults.urls),
        publish_url=read.text("PUBLISH_URL"),
        publish_mode=read.parsed("PUBLISH_MODE", _one_of(_MODES), defaults.publish_mode),
        publish_timeout=read.seconds("PUBLISH_TIMEOUT", defaults.publish_timeout),
        publish_secrets=read.secrets("PUBLISH_SECRET"),
        deadletter_url=read.text("DEADLETTER_URL"),
        http_public=read.flag("EVENTS_HTTP_PUBLIC"),
        http_secrets=read.secrets("EVENTS_HTTP_SECRET"),
        http_tolerance=read.seconds("EVENTS_HTTP_TOLERANCE", defaults.http_tolerance),
        max_attempts=read.count("EVENTS_MAX_ATTEMPTS", defaults.max_attempts),
        max_age=read.seconds("EVENTS_MAX_AGE", defaults.max_age),
        retry_base=read.seconds("EVENTS_RETRY_BASE", defaults.retry_base),
        retry_cap=read.seconds("EVENTS_RETRY_CAP", defaults.retry_cap),
        timeout=read.seconds("EVENTS_TIMEOUT", defaults.timeout),
        unknown=read.parsed("EVENTS_UNKNOWN", _one_of(_UNKNOWN), defaults.unknown),
        order=read.parsed("EVENTS_ORDER", _one_of(_ORDERS), defaults.order),
        lanes=read.count("EVENTS_LANES", defaults.lanes),
        max_uncommitted=read.count("EVENTS_MAX_UNCOMMITTED", defaults.max_uncommitted),
        commit_interval=read.seconds("EVENTS_COMMIT_INTERVAL", defaults.commit_interval),
        session_timeout=read.seconds("EVENTS_SESSION_TIMEOUT", defaults.session_timeout),
        start_timeout=read.seconds("EVENTS_START_TIMEOUT", defaults.start_timeout),
    )
    _check(policy)
    return policy


def _check(policy: EventsPolicy) -> None:
    """Refuse what would stand still."""
    for name, value in (
        ("EVENTS_MAX_ATTEMPTS", policy.max_attempts),
        ("EVENTS_LANES", policy.lanes),
        ("EVENTS_MAX_UNCOMMITTED", policy.max_uncommitted),
        ("EVENTS_COMMIT_INTERVAL", policy.commit_interval),
        ("EVENTS_SESSION_TIMEOUT", policy.session_timeout),
        ("EVENTS_START_TIMEOUT", policy.start_timeout),
        ("PUBLISH_TIMEOUT", policy.publish_timeout),
    ):
        if not value:
            raise SettingError(name, "must be over 0")
    if policy.max_uncommitted < policy.lanes:
        raise SettingError("EVENTS_MAX_UNCOMMITTED", "must not be less than EVENTS_LANES")


def _urls(text: str) -> tuple[str, ...]:
    # A Kafka URL lists its brokers with commas: a comma begins another URL only where a scheme follows.
    parts: list[str] = []
    for part in filter(None, map(str.strip, text.split(","))):
        scheme, colon, rest = part.partition(":")
        if colon and (scheme in SOURCES) and (rest.startswith("//") or not rest):
            parts.append(part)
        elif parts and not (colon and rest.startswith("//")):
            parts[-1] += f",{part}"
        else:
            raise ValueError(f"must list URLs that start with one of {', '.join(f'{name}:' for name in SOURCES)}")
    return tuple(parts)


def _one_of(known: tuple[str, ...]) -> Callable[[str], str]:
    def checked(text: str) -> str:
        if text.lower() not in known:
            raise ValueError(f"must be one of {', '.join(known)}")
        return text.lower()

    return checked
