"""Which bucket, and how to reach it: ``s3://bucket/prefix?endpoint=…&region=…``."""

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from ..backends import UrlOptions, split_url
from ..errors import SettingError
from ..secrets import Secret, required
from .errors import ObjectKeyError
from .objects import check_key

_SETTING = "STORAGE_URL"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_REGION = re.compile(r"[a-z0-9-]{1,40}")
_MAX_PREFIX_BYTES = 256
"""S3's keys have at most 1,024 bytes; ours have 512, and what describes streams a few beside them."""
_MAX_TIMEOUT_SECONDS = 3600.0
_OPTIONS = {
    *("access_key_secret", "ca_secret", "checksums", "endpoint", "path_style", "public_endpoint", "region"),
    *("secret_key_secret", "timeout", "warm"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Location:
    """A bucket, and the part of it that holds the store's objects."""

    bucket: str
    prefix: str = ""
    """Empty, or what every key begins with, slash included."""
    endpoint: str | None = None
    """The server's URL; None is Amazon's, in *region*."""
    public_endpoint: str | None = None
    """The URL by which others reach the server, for presigned addresses; None is *endpoint*."""
    region: str | None = None
    """None is the environment's (``AWS_DEFAULT_REGION``), or us-east-1."""
    path_style: bool = False
    """Whether the bucket stands in the path, not in the host's name; the default where an *endpoint* is given."""
    access_key: Secret | None = None
    secret_key: Secret | None = None
    """Both, or none: then the environment's usual chain has the credentials (variables, web identity, instance)."""
    ca: Secret | None = None
    """Certificates, in PEM, of whoever signs the endpoint's; None is the system's list."""
    checksums: bool = True
    """Whether S3's own checksums go with what is sent; some servers refuse headers that they do not know."""
    timeout_seconds: float = 10.0
    """What one request may take with all its repetitions, a piece of a stream likewise; large bodies get more."""
    warm: bool = False
    """Whether the library is imported in the background at start, rather than by the first operation."""

    @classmethod
    def from_url(cls, url: str) -> "S3Location":
        """
        Read *url*; secrets that it names must be there where a function starts.

        Raises:
            SettingError: A part of *url* cannot be used.
            SecretMissingError: A secret is missing.
        """
        parts, options = split_url(_SETTING, url), UrlOptions.of(_SETTING, url, _OPTIONS)
        endpoint = options.parsed("endpoint", _endpoint, None)
        access_key = options.parsed("access_key_secret", _secret, None)
        secret_key = options.parsed("secret_key_secret", _secret, None)
        if (access_key is None) != (secret_key is None):
            raise SettingError(_SETTING, "needs both of access_key_secret and secret_key_secret, or none")
        return cls(
            bucket=_bucket(parts),
            prefix=_prefix(parts),
            endpoint=endpoint,
            public_endpoint=options.parsed("public_endpoint", _endpoint, None),
            region=options.parsed("region", _region, None),
            path_style=options.flag("path_style", endpoint is not None),
            access_key=access_key,
            secret_key=secret_key,
            ca=options.parsed("ca_secret", _secret, None),
            checksums=options.flag("checksums", True),
            timeout_seconds=options.seconds("timeout", 10.0, least=0.001, most=_MAX_TIMEOUT_SECONDS),
            warm=options.flag("warm", False),
        )


def _bucket(parts: SplitResult) -> str:
    if not _BUCKET.fullmatch(parts.netloc) or parts.fragment:
        # Nothing of it is shown: there may be credentials in it.
        raise SettingError(_SETTING, "must be like s3://bucket/prefix, with credentials in secrets and not in the URL")
    return parts.netloc


def _prefix(parts: SplitResult) -> str:
    prefix = unquote(parts.path).strip("/")
    if not prefix:
        return ""
    try:
        check_key(prefix)
    except ObjectKeyError as exc:
        raise SettingError(_SETTING, f"has a prefix that cannot be used: {exc.reason}") from None
    if len(prefix.encode()) > _MAX_PREFIX_BYTES:
        raise SettingError(_SETTING, f"has a prefix of more than {_MAX_PREFIX_BYTES} bytes")
    return f"{prefix}/"


def _endpoint(text: str) -> str:
    try:
        parts = urlsplit(text)
        fits = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        fits = False
    if not fits or "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("must be a URL such as https://s3.example.com:9000")
    return text.rstrip("/")


def _region(text: str) -> str:
    if not _REGION.fullmatch(text):
        raise ValueError("must be like eu-central-1")
    return text


def _secret(text: str) -> Secret:
    return required(Secret(text, setting=_SETTING))
