"""Rows: settings that cannot be meant."""

from tests.contract.table import Call, Expected, Only, Refused, Row

CONFIG = "of-watchdog config/config.go"
DEFAULTED = "of-watchdog silently takes its default: a limit that somebody set is then not there"


def _refused(setting: str, value: str, differs: str = DEFAULTED) -> Row:
    return Row(
        f"{setting}={value}",
        CONFIG,
        (
            Only("ours", Refused(setting)),
            Only("of-watchdog", Call("/", Expected(200))),
        ),
        {setting: value},
        differs=differs,
    )


ROWS = (
    _refused("exec_timeout", "ten"),
    _refused("read_timeout", "10 s"),
    _refused("write_timeout", "-5"),
    _refused("healthcheck_interval", "1d"),
    _refused("max_inflight", "many", "of-watchdog reads it as 0, which is no limit at all"),
    _refused("max_inflight", "-1", "of-watchdog takes a negative limit for none"),
    Row(
        "write_timeout=0",
        CONFIG,
        (Refused("must be over 0s"),),
        {"write_timeout": "0"},
    ),
    Row(
        "jwt_auth without of-watchdog",
        "of-watchdog pkg/watchdog.go: makeJWTAuthHandler",
        (
            Only("ours", Refused("jwt_auth")),
            Only("of-watchdog", Refused("error creating JWTAuthMiddleware")),
        ),
        {"jwt_auth": "true", "OPENFAAS_NAMESPACE": "openfaas-fn"},
        differs="only of-watchdog checks such tokens (here it finds no gateway with keys): a start without is a hole",
    ),
    Row(
        "TMPDIR that cannot be written",
        "of-watchdog pkg/watchdog.go: createLockFile",
        (
            Only("ours", Refused("lock")),
            Only("of-watchdog", Refused("", status=0)),
        ),
        {"TMPDIR": "/dev/null/tmp"},
        differs="of-watchdog ends without a word and with status 0, so that nothing tells why",
    ),
)
