"""What events need in a cluster and not here: secrets of those who push them, and the cluster's own gateway."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

SECRET_SETTINGS = ("EVENTS_HTTP_SECRET", "PUBLISH_SECRET")
# Of faasd, of Kubernetes, and of Kubernetes in longer ways.
CLUSTER_GATEWAY = re.compile(r"\bhttp://gateway(\.openfaas(\.svc(\.cluster\.local)?)?)?:8080(?=/|$)")
# As the base reads EVENTS_URL: a comma begins another URL only where a scheme follows.
NEXT_SOURCE = re.compile(r"\s*,\s*(?=(?:http|kafka|memory|nats):(?://|\s*(?:,|$)))")
HIDDEN = re.compile(r"(?<=://).*@|\?.*", re.DOTALL)


def pushing_secrets(environment: Mapping[str, str]) -> set[str]:
    """Return the names of the secrets that only those who push events need, and nobody on this machine does."""
    return {secret for name in SECRET_SETTINGS for secret in _listed(environment.get(name, ""))}


def local_environment(environment: Mapping[str, str], secrets: Path, gateway_url: str) -> dict[str, str]:
    """
    Return *environment* with the cluster's gateway replaced by *gateway_url*.

    Settings of secrets that only pushing needs name those that are in *secrets*, and are left out where none is.
    """
    local = {name: CLUSTER_GATEWAY.sub(gateway_url.rstrip("/"), value) for name, value in environment.items()}
    for name in local.keys() & SECRET_SETTINGS:
        local[name] = ",".join(secret for secret in _listed(local[name]) if (secrets / secret).is_file())
        if not local[name]:
            del local[name]
    return local


def event_sources(environment: Mapping[str, str]) -> list[str]:
    """Return where events come from, to be shown: ``http:`` for pushed ones, else URLs without options and users."""
    urls = NEXT_SOURCE.split(environment.get("EVENTS_URL", "").strip() or "http:")
    return [HIDDEN.sub("", url) for url in urls]


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]
