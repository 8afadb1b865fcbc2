"""What looks like a secret, is named like one or is known to be one does not leave the process; the search is cheap."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faasbase.redaction import Redactor

LINE_CHARACTERS = 700_000
secrets = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Z"]), min_size=6, max_size=60)
texts = st.text(max_size=100)


@given(secret=secrets, before=texts, after=texts)
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_content_of_a_secret_file_is_masked_in_any_text(tmp_path: Path, secret: str, before: str, after: str) -> None:
    """Whatever characters it has, regular expressions' own among them."""
    (tmp_path / "key").write_text(secret + "\n")
    redactor = Redactor(tmp_path)
    if secret.lower() not in {"enabled", "disabled"}:
        assert secret not in redactor.text(f"{before} {secret} {after}") or secret in "***"


def test_lines_of_a_key_file_are_masked_one_by_one(tmp_path: Path) -> None:
    """A PEM file leaks by the line as well."""
    (tmp_path / "tls.key").write_text("-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF\n-----END KEY-----\n")
    assert "kqhkiG9w0BAQEF" not in Redactor(tmp_path).text("found kqhkiG9w0BAQEF in the body")


@pytest.mark.parametrize(
    "environ",
    [
        {"SHOP_API_KEY": "canary-4711"},
        {"db_password": "canary-4711"},
        {"CACHE_URL": "redis://:canary-4711@cache:6379/0"},
        {"OTEL_EXPORTER_OTLP_HEADERS_TOKEN": "canary-4711"},
    ],
)
def test_secret_settings_are_known(tmp_path: Path, environ: dict[str, str]) -> None:
    """Settings that are named like secrets, and passwords in URLs."""
    assert "canary" not in Redactor(tmp_path, environ).text("it says canary-4711 here")


@pytest.mark.parametrize("name", ["password", "X-Api-Key", "access_key_id", "Set-Cookie", "client_secret", "IBAN"])
def test_value_of_a_field_with_such_a_name_is_masked(tmp_path: Path, name: str) -> None:
    """At any depth, whatever its type; names that an operator adds too."""
    redactor = Redactor(tmp_path, fields=["iban"])
    nested = {"order": [{name: ["canary-4711", 7]}], "name": "Ada"}
    masked = redactor.value("extra", nested)
    assert "canary" not in json.dumps(masked)
    assert masked["name"] == "Ada"


@pytest.mark.parametrize("text", ["the secret garden", "token ring", "password reset sent", "keys: 3", "a://b/c@d"])
def test_words_that_hide_nothing_stay(tmp_path: Path, text: str) -> None:
    """A log that masks everything tells nothing."""
    assert Redactor(tmp_path).text(text) == text


def test_short_values_are_no_secrets(tmp_path: Path) -> None:
    """Masking ``true`` or ``1`` wherever they occur would ruin the log."""
    (tmp_path / "flag").write_text("true")
    assert Redactor(tmp_path, {"USE_TOKEN": "1"}).text("1 is true") == "1 is true"


def test_what_is_nested_too_deep_is_masked_whole(tmp_path: Path) -> None:
    """A structure that refers to itself ends somewhere."""
    endless: dict[str, object] = {"name": "Ada"}
    endless["again"] = endless
    assert "***" in json.dumps(Redactor(tmp_path).value("extra", endless))


def test_odd_files_among_the_secrets_are_passed_over(tmp_path: Path) -> None:
    """Folders, hidden files and bytes that are no text stop nothing."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "..data").write_text("not-looked-at")
    (tmp_path / "binary").write_bytes(bytes(range(128, 256)))
    (tmp_path / "key").write_text("canary-4711")
    assert Redactor(tmp_path, {"X_URL": "http://[broken"}).text("not-looked-at canary-4711") == "not-looked-at ***"


def test_missing_folder_is_no_secret(tmp_path: Path) -> None:
    """A function without secrets has no such folder."""
    assert Redactor(tmp_path / "nowhere").text("fine") == "fine"


@pytest.mark.parametrize(
    "piece",
    [
        "x",
        "a-",
        "password",
        "password=",
        "password: ",
        "://",
        "://a",
        "Bearer ",
        "Bearer a",
        'token"',
        "secret\t",
        "k@",
    ],
)
def test_search_takes_linear_time(tmp_path: Path, piece: str) -> None:
    """Nobody can stop a function with a long line: 700 kB of anything cost a fraction of a second, not minutes."""
    redactor = Redactor(tmp_path, {"API_TOKEN": "canary-4711"})
    line = piece * (LINE_CHARACTERS // len(piece))
    start = time.perf_counter()
    redactor.text(line)
    assert time.perf_counter() - start < 3.0
