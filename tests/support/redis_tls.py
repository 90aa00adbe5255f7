"""A Redis server that speaks nothing but TLS, to a user who may do what greenq does and no more.

The certificates are made for it. The rules of the user are those of docs/redis.md.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import redis

from .processes import ROOT
from .redis_server import RedisServer, shared

HOW_TO_GET_OPENSSL = (
    "openssl is not installed, and these tests make certificates with it. On Debian and Ubuntu: apt-get install openssl"
)
USER, PASSWORD = "greenq", "a-long-password"
_ADMIN_PASSWORD = "for the tests alone"


def documented_rules() -> str:
    """The user's rules, as the page for operators has them."""
    page = (ROOT / "docs" / "redis.md").read_text()
    found = re.search(r"^ +user greenq ((?:.*\\\n)*.*)$", page, re.MULTILINE)
    assert found, "docs/redis.md does not have the rules of user greenq"
    return " ".join(found.group(1).replace("\\\n", " ").split())


class TlsServer(RedisServer):
    """A server with a certificate and no plain port; the default user is off.

    Attributes:
      authority(Path): The certificate of whoever signed the server's.
    """

    def __init__(self, *, rules: str | None = None, **settings: Any) -> None:
        self._rules = documented_rules() if rules is None else rules
        super().__init__(**settings)

    @property
    def authority(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def url(self) -> str:
        return f"rediss://{USER}:{PASSWORD}@127.0.0.1:{self.port}/0?ssl_ca_certs={self.authority}"

    def _connect(self, **parameters: Any) -> Any:
        of_admin = {"username": "admin", "password": _ADMIN_PASSWORD, "ssl": True, "ssl_ca_certs": str(self.authority)}
        return super()._connect(**{**of_admin, **parameters})

    def _arguments(self) -> list[str]:
        if not self.authority.exists():
            make_certificates(self.folder)
        users = self.folder / "users.acl"
        users.write_text(
            "user default off\n"
            f"user admin on #{_sha256(_ADMIN_PASSWORD)} ~* &* +@all\n"
            f"user {USER} {self._rules.replace('a-long-password', PASSWORD)}\n"
        )
        self._settings |= {
            "port": 0,
            "tls_port": self.port,
            "tls_cert_file": self.folder / "server.crt",
            "tls_key_file": self.folder / "server.key",
            "tls_ca_cert_file": self.authority,
            "tls_auth_clients": "no",
            "aclfile": users,
        }
        return super()._arguments()


def make_certificates(folder: Path) -> None:
    """Make ca.crt, and server.crt with server.key for 127.0.0.1 and localhost, in a folder."""
    openssl = shutil.which("openssl")
    if openssl is None:
        raise RuntimeError(HOW_TO_GET_OPENSSL)

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=folder, check=True, capture_output=True)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    run("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=greenq tests")
    run("req", *key[:5], "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    signed_by = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names"]
    run("x509", "-req", "-in", "server.csr", "-out", "server.crt", *signed_by)


def _sha256(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


def shared_tls_server() -> TlsServer:
    """One that tests share; empty it before use."""
    return shared(TlsServer)


def greenqs_client(server: TlsServer) -> Any:
    """A client with greenq's own rights."""
    return redis.Redis.from_url(server.url)
