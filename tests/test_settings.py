"""Settings are read once, by of-watchdog's rules for durations, and a bad one is named and never shown."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasbase.durations import parse_duration
from faasbase.errors import SettingError
from faasbase.settings import Settings, load_settings
from tests.processes import run_function

# time.ParseDuration: https://pkg.go.dev/time#ParseDuration
SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "\u00b5s": 1e-6, "\u03bcs": 1e-6, "ns": 1e-9}
GO_DURATION = re.compile(r"[-+]?(0|((\d+\.?\d*|\.\d+)(h|m|s|ms|us|\u00b5s|\u03bcs|ns))+)", re.ASCII)
# strconv.Atoi, which of-watchdog tries first.
WHOLE_NUMBER = re.compile(r"[-+]?\d+", re.ASCII)

parts = st.tuples(st.integers(0, 10_000), st.integers(0, 999), st.sampled_from(sorted(SECONDS)))


@given(st.lists(parts, min_size=1, max_size=5), st.sampled_from(["", "+", "-"]))
def test_duration_is_the_sum_of_its_parts(given_parts: list[tuple[int, int, str]], sign: str) -> None:
    """Any number of parts in any order, each with a fraction."""
    text = sign + "".join(f"{whole}.{fraction:03}{unit}" for whole, fraction, unit in given_parts)
    expected = sum((whole + fraction / 1000) * SECONDS[unit] for whole, fraction, unit in given_parts)
    assert parse_duration(text) == pytest.approx(-expected if sign == "-" else expected)


@given(st.integers(-(10**6), 10**6))
def test_plain_number_is_seconds(number: int) -> None:
    """of-watchdog's older syntax."""
    assert parse_duration(str(number)) == number


@given(st.text(alphabet="0123456789.+-hmsun\u00b5\u03bc \u0663", max_size=12))
def test_what_go_refuses_is_refused(text: str) -> None:
    """The same language as Go's parser and Atoi together, and no more."""
    if GO_DURATION.fullmatch(text) or WHOLE_NUMBER.fullmatch(text):
        assert isinstance(parse_duration(text), float)
    else:
        with pytest.raises(ValueError, match="duration"):
            parse_duration(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("15", 15), ("10s", 10), ("1m30s", 90), ("250ms", 0.25), ("1.5h", 5400), (".5s", 0.5), ("1.s", 1), ("0", 0)],
)
def test_durations_of_the_documentation(text: str, seconds: float) -> None:
    """The forms that people write."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "1d", "1 s", "ten", "1h 2m", "1e3s", "0x10", "1_000", "\u0661s", "-", "."])
def test_nonsense_is_no_duration(text: str) -> None:
    """Close misses among it."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


BAD = [
    ("port", "eighty"),
    ("port", "0"),
    ("port", "65536"),
    ("metrics_port", "-1"),
    ("exec_timeout", "ten-canary"),
    ("read_timeout", "-5s"),
    ("write_timeout", "0"),
    ("healthcheck_interval", "1d"),
    ("max_inflight", "many"),
    ("max_inflight", "-1"),
    ("max_inflight", "1.5"),
    ("MAX_BODY_BYTES", "1MB"),
    ("suppress_lock", "maybe"),
    ("jwt_auth", "true"),
    ("mode", "streaming"),
    ("LOG_LEVEL", "loud"),
    ("ready_path", "ready"),
    ("ROOT_PATH", "no-slash"),
    ("OPENFAAS_NAME", "Bad Name"),
    ("upstream_url", "127.0.0.1:5000"),
    ("upstream_url", "http://127.0.0.1"),
    ("EVENTS_URL", "gopher://canary"),
    ("EVENTS_HTTP_SECRET", "../canary"),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_bad_value_is_named_and_not_shown(name: str, value: str) -> None:
    """The message helps whoever set it and tells nobody else what it was."""
    with pytest.raises(SettingError) as caught:
        load_settings({name: value})
    assert caught.value.name == name
    assert name in str(caught.value)
    if "canary" in value:
        assert value not in str(caught.value)


def test_urls_are_not_shown() -> None:
    """They may hold a password."""
    names = ("CACHE_URL", "IDEMPOTENCY_URL", "STORAGE_URL")
    assert "canary" not in repr(load_settings(dict.fromkeys(names, "redis://:canary@host")))


@given(st.sampled_from(sorted({name for name, _ in BAD})), st.text(max_size=20))
def test_any_text_is_taken_or_refused_by_name(name: str, text: str) -> None:
    """No value of a setting raises anything else."""
    try:
        settings = load_settings({name: text})
    except SettingError as error:
        refused = error.name
    else:
        refused = name
        assert isinstance(settings, Settings)
    assert refused == name


@pytest.mark.parametrize(
    ("environ", "name", "root_path"),
    [
        ({"OPENFAAS_NAME": "shop"}, "shop", "/function/shop"),
        ({"HOSTNAME": "shop-7d9c5b8f6d-x2x4z"}, "shop", "/function/shop"),
        ({"HOSTNAME": "order-intake-7d9c5b8f6d-x2x4z"}, "order-intake", "/function/order-intake"),
        ({"HOSTNAME": "shop"}, "shop", "/function/shop"),
        ({"HOSTNAME": "image-processor-small"}, "image-processor-small", "/function/image-processor-small"),
        ({"HOSTNAME": "order-service-intak"}, "order-service-intak", "/function/order-service-intak"),
        ({"OPENFAAS_NAME": "shop", "OPENFAAS_NAMESPACE": "openfaas-fn"}, "shop", "/function/shop"),
        ({"OPENFAAS_NAME": "shop", "OPENFAAS_NAMESPACE": "staging-fn"}, "shop", "/function/shop.staging-fn"),
        ({"HOSTNAME": "Weird_Host!"}, "function", "/function/function"),
        ({}, "function", "/function/function"),
        ({"OPENFAAS_NAME": "shop", "ROOT_PATH": "/api/"}, "shop", "/api"),
        ({"OPENFAAS_NAME": "shop", "ROOT_PATH": "/"}, "shop", ""),
    ],
)
def test_name_and_prefix(environ: dict[str, str], name: str, root_path: str) -> None:
    """Standard tells the name, CE leaves it in the pod's host name, faasd in the container's."""
    settings = load_settings(environ)
    assert (settings.function_name, settings.root_path) == (name, root_path)


def test_behind_of_watchdog_the_ports_are_others() -> None:
    """``upstream_url`` says where to listen; 8081 is of-watchdog's own."""
    settings = load_settings({"upstream_url": "http://127.0.0.1:5000", "port": "8080"})
    assert settings.behind_watchdog
    assert (settings.host, settings.port, settings.metrics_port) == ("127.0.0.1", 5000, 8082)


@pytest.mark.parametrize(
    ("environ", "enabled"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_tracing_follows_open_telemetrys_own_switches(environ: dict[str, str], enabled: bool) -> None:
    """An endpoint switches it on, two variables off again."""
    assert load_settings(environ).tracing_enabled is enabled


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, 21.0),
        ({"write_timeout": "60s", "healthcheck_interval": "5s"}, 21.0),
        ({"write_timeout": "10s", "healthcheck_interval": "5s"}, 10.0),
        ({"write_timeout": "60s", "OPENFAAS_NAME": "standard"}, 51.0),
        ({"write_timeout": "60s", "termination_grace_period": "90s"}, 60.0),
        ({"write_timeout": "4s", "OPENFAAS_NAME": "standard"}, 2.0),
    ],
)
def test_drain_ends_before_the_pod_is_killed(environ: dict[str, str], seconds: float) -> None:
    """CE gives a pod 30 s from SIGTERM on; Standard fits its grace period to ``write_timeout``."""
    assert load_settings(environ).drain_timeout == seconds


def test_window_that_the_pod_does_not_survive_stops_the_start() -> None:
    """60 s of window in a pod that is killed after 30 s would lose every call in flight at each restart."""
    with pytest.raises(SettingError, match="healthcheck_interval"):
        load_settings({"healthcheck_interval": "60s"})
    assert load_settings({"healthcheck_interval": "60s", "termination_grace_period": "90s"}).drain_timeout == 21.0


@pytest.mark.anyio
async def test_bad_value_stops_the_start_with_one_line() -> None:
    """Exit status 1 and one critical JSON line that names the setting."""
    async with run_function("", exec_timeout="ten-canary").unwaited() as function:
        assert await function.exited() == 1
        (line,) = function.logs()
    assert line["level"] == "critical"
    assert line["message"].startswith("start failed: setting exec_timeout cannot be used: ")
    assert "canary" not in function.output()


@pytest.mark.anyio
async def test_port_that_is_taken_stops_the_start() -> None:
    """Two processes never share a port by accident."""
    async with run_function("async def handle() -> str:\n    return ''\n") as first:
        port = str(first.port)
        async with run_function("", port=port).unwaited() as second:
            assert await second.exited() == 1
            assert f"cannot listen on *:{port}" in second.output()
