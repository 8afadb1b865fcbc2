"""What looks like a secret, is named like one or is known to be one does not leave the process; the search is cheap."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faasbase.redaction import Redactor

LINE_CHARACTERS = 700_000
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.canary_4711-x"
NAMES = [
    *("password", "X-Api-Key", "access_key_id", "Set-Cookie", "client_secret", "IBAN"),
    *("session_id", "sessionId", "jwt", "pwd", "secret_key", "db_pass", "tokens"),
]
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
        {"STRIPE_SECRET_KEY": "canary-4711"},
        {"SECRET_KEY": "canary-4711"},
        {"JWT_SIGNING_KEY": "canary-4711"},
        {"DB_PWD": "canary-4711"},
        {"OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=shop,x-api-key=canary-4711"},
        {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20canary-4711"},
        {"SHOP_DB": "postgres://app:c%61nary%2D4711@db/shop"},
        {"NATS_URL": "nats://a:other-one@n1:4222,nats://b:canary-4711@n2:4222"},
    ],
)
def test_secret_settings_are_known(tmp_path: Path, environ: dict[str, str]) -> None:
    """Settings that are named like secrets, passwords in URLs as written and decoded, headers of the exporter."""
    assert "canary" not in Redactor(tmp_path, environ).text("it says canary-4711 here")


def test_setting_that_names_secrets_hides_no_names(tmp_path: Path) -> None:
    """What names none may be a secret itself, put in the wrong place."""
    (tmp_path / "events-key").write_text("the key of the events")
    redactor = Redactor(tmp_path, {"PUBLISH_SECRET": "events-key", "WEBHOOK_SECRET": "hooks-key"})
    assert redactor.text("events-key is there, hooks-key is not") == "events-key is there, *** is not"


def test_password_with_a_slash_is_known(tmp_path: Path) -> None:
    """No URL may have one, and many have."""
    assert "nary" not in Redactor(tmp_path, {"SHOP_DB": "postgres://u:ca/nary-4711@db/shop"}).text("with ca/nary-4711")


@pytest.mark.parametrize("name", ["PWD", "OLDPWD", "MAX_TOKENS", "SHOP_URL"])
def test_other_settings_are_no_secrets(tmp_path: Path, name: str) -> None:
    """The shell's own working directories, counts and addresses may be logged."""
    value = {"MAX_TOKENS": "1000000", "SHOP_URL": "http://shop:8080/a"}.get(name, "/home/app")
    assert Redactor(tmp_path, {name: value}).text(f"see {value} there") == f"see {value} there"


@pytest.mark.parametrize("name", NAMES)
def test_value_of_a_field_with_such_a_name_is_masked(tmp_path: Path, name: str) -> None:
    """At any depth, whatever its type; names that an operator adds too."""
    redactor = Redactor(tmp_path, fields=["iban"])
    nested = {"order": [{name: ["canary-4711", 7]}], "name": "Ada"}
    masked = redactor.value("extra", nested)
    assert "canary" not in json.dumps(masked)
    assert masked["name"] == "Ada"


@pytest.mark.parametrize("name", ["max_tokens", "gen_ai.usage.input_tokens", "token_count", "tokens", "keys"])
def test_counts_pass_through(tmp_path: Path, name: str) -> None:
    """What a language model has used is no secret, as a field and in text."""
    redactor = Redactor(tmp_path)
    assert redactor.value("extra", {name: 512}) == {name: 512}
    assert redactor.text(f"{name}=512, {name}: 7") == f"{name}=512, {name}: 7"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("cookie: a=1; session=canary\nnext", "cookie: ***\nnext"),
        ("Set-Cookie: a=canary; Path=/", "Set-Cookie: ***"),
        ("Authorization: Token canary-4711", "Authorization: ***"),
        ('authorization: Digest username="ada", response="canary"', "authorization: ***"),
        ("(b'authorization', b'Token canary'), (b'host', b'x')", "(b'authorization', b'***'), (b'host', b'x')"),
        ("Bearer canary:4711 x", "Bearer *** x"),
        ("password=ab,canary", "password=***"),
        ("password=ab)canary, user=ada", "password=***, user=ada"),
        ("call(password=canary), next", "call(password=***), next"),
        ("?token=canary&item=tea", "?token=***&item=tea"),
        ('{"password": "a b canary", "id": 1}', '{"password": "***", "id": 1}'),
        (r'{"password": "a \" canary", "id": 1}', '{"password": "***", "id": 1}'),
        (r"{\"password\": \"a b canary\", \"id\": 1}", r"{\"password\": \"***\", \"id\": 1}"),
        ("{'password': 'a b canary", "{'password': '***"),
        ("secrets: ['a', 'canary']", "secrets: ***"),
        ("secret_key=canary", "secret_key=***"),
        ("tokens=12-canary", "tokens=***"),
        ("postgres://u:pa/canary@h/db", "postgres://***@h/db"),
        ("postgres://u:p@canary@h/db", "postgres://***@h/db"),
        (f"got {JWT}, so", "got ***, so"),
    ],
)
def test_shapes_are_masked_whole(tmp_path: Path, text: str, masked: str) -> None:
    """Any scheme, quoted values with what stands in them, and no tail left over."""
    assert Redactor(tmp_path).text(text) == masked


PLAIN = [
    *("the secret garden", "token ring", "password reset sent", "keys: 3", "bypass=1", 'password=""'),
    *("a://b/c@d", "http://h:8080/a/x@y", "http://[::1]:8080/x@y", "eyJust.a.word"),
]


@pytest.mark.parametrize("text", PLAIN)
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


def test_keys_of_mappings_are_redacted(tmp_path: Path) -> None:
    """A table of sessions has its secrets on the left."""
    (tmp_path / "key").write_text("canary-4711")
    assert Redactor(tmp_path).value("extra", {"canary-4711": 1}) == {"***": 1}


def test_rotated_file_is_read_again(tmp_path: Path) -> None:
    """At the latest half a minute on: a file that was written over, and one that is new."""
    now = [1000.0]
    (tmp_path / "key").write_text("canary-4711")
    redactor = Redactor(tmp_path, clock=lambda: now[0])
    assert redactor.text("canary-4711") == "***"
    (tmp_path / "key").write_text("canary-4712")
    (tmp_path / "new").write_text("canary-4713")
    now[0] += 30.0
    assert redactor.text("canary-4712 canary-4713") == "*** ***"


def test_pipe_among_the_secrets_blocks_nothing(tmp_path: Path) -> None:
    """Opening one waits for its writer; a link to nowhere hides none of the rest."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    (tmp_path / "key").write_text("canary-4711")
    assert Redactor(tmp_path).text("canary-4711") == "***"


def test_public_pem_blocks_are_no_secrets(tmp_path: Path) -> None:
    """Of a key with its certificate the key is one; of a list of authorities, nothing."""
    private, public = _pem("PRIVATE KEY"), _pem("CERTIFICATE")
    (tmp_path / "tls.pem").write_text(public + private)
    (tmp_path / "ca.pem").write_text("A Certification Authority of 1999\n" + public + _pem("PUBLIC KEY"))
    redactor = Redactor(tmp_path)
    assert redactor.text(public) == public
    assert redactor.text("Certification Authority") == "Certification Authority"
    assert redactor.text(private).split("\n")[1] == "***"


def test_parts_of_a_json_secret_are_masked(tmp_path: Path) -> None:
    """A service account's key leaks by the line of the PEM block in it, and what stands beside it too."""
    key = _pem("PRIVATE KEY")
    (tmp_path / "account.json").write_text(json.dumps({"private_key": key, "client_secret": "canary-of-4711"}))
    redactor = Redactor(tmp_path)
    assert redactor.text(f"in {key.splitlines()[1]} and canary-of-4711") == "in *** and ***"


@pytest.mark.parametrize("label", ["CERTIFICATE", "PRIVATE KEY"])
def test_cost_does_not_grow_with_the_secrets(tmp_path: Path, label: str) -> None:
    """Ten files of 60 kB: a traceback of 5 kB takes about half a millisecond, a line of 700 kB less than 300."""
    for number in range(10):
        (tmp_path / f"{number}.pem").write_text(_pem(label, characters=60_000))
    redactor = Redactor(tmp_path)
    redactor.text("the first text has the files read")
    frame = '  File "/home/app/function/handler.py", line 12, in handle\n    return await shop.ask(token=token)\n'
    traceback = frame * (5000 // len(frame))
    # The bounds are wider than what is stated, since other tests run beside this one.
    assert _seconds(redactor, traceback) < 0.005
    assert _seconds(redactor, traceback * 140) < 1.0


def _pem(label: str, characters: int = 1000) -> str:
    lines = [base64.b64encode(os.urandom(48)).decode() for _ in range(characters // 65)]
    return "\n".join((f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""))


def _seconds(redactor: Redactor, text: str) -> float:
    """Return what the fastest of a few searches took."""
    durations = []
    for _ in range(3):
        start = time.perf_counter()
        redactor.text(text)
        durations.append(time.perf_counter() - start)
    return min(durations)


@pytest.mark.parametrize("start", ["", "password=", 'token: "', "://a:", "eyJabcdefg."])
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
        "a@b",
        "@",
        "eyJ",
        "-eyJ",
        "eyJabcdefg.",
        '"',
        "'\"",
        '\\"',
        "password='",
        "password=,",
        "password=[\n",
        "tokens=1",
        "cookie: ",
        "cookie:\n",
        ",",
        "canary-4711",
    ],
)
def test_search_takes_linear_time(tmp_path: Path, piece: str, start: str) -> None:
    """Nobody can stop a function with a long line: 700 kB of anything cost a fraction of a second, not minutes."""
    redactor = Redactor(tmp_path, {"API_TOKEN": "canary-4711"})
    line = start + piece * (LINE_CHARACTERS // len(piece))
    began = time.perf_counter()
    redactor.text(line)
    assert time.perf_counter() - began < 3.0
