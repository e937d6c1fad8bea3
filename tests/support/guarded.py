"""Registries that do not let everybody in: by password, and by the tokens of a service.

Debian's registry 2.8 wants an RSA or EC signature by a certificate that it knows (`x5c`).
"""

import base64
import contextlib
import datetime
import fnmatch
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jwt
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.processes import write
from tests.support.servers import Server, stock_registry

#: Users of the htpasswd file, with their passwords.
PASSWORDS = {"alice": "open sesame", "nixfront": "between us"}
_HASHES = {  # bcrypt
    "alice": "$2b$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW",
    "nixfront": "$2b$05$abcdefghijklmnopqrstuuvEKXGLbm9clLOlrDd2sWxdmv66uH1yS",
}
_SERVICE = "the registry"
_ISSUER = "the token service"
_DAY = datetime.timedelta(days=1)


def basic(user: str, password: str = "") -> dict[str, str]:
    """The header with which a user comes; with the password of the htpasswd file if none is given."""
    pair = f"{user}:{password or PASSWORDS.get(user, 'wrong')}".encode()
    return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}


@contextlib.asynccontextmanager
async def htpasswd_registry(folder: Path) -> AsyncIterator[Server]:
    """A stock registry that wants a password for everything."""
    users = write(folder / "htpasswd", "".join(f"{user}:{hash_}\n" for user, hash_ in _HASHES.items()))
    guarded = {"auth": {"htpasswd": {"realm": "the registry", "path": str(users)}}}
    async with stock_registry(folder, sections=guarded) as server:
        yield server


@dataclass(frozen=True, slots=True)
class Right:
    """What a user of the token service may do; the user "" is everybody who names none."""

    user: str
    repositories: str  # a pattern
    actions: tuple[str, ...] = ("pull",)


@dataclass
class TokenService:
    """A token service: users with passwords, their rights, and what was asked of it (account, scopes)."""

    passwords: Mapping[str, str]
    rights: Sequence[Right]
    lives: int = 300  # seconds
    url: str = ""
    asked: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = _certificate(self._key)

    def bundle(self) -> str:
        """The certificate that the registry has to know, as PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """A token for the rights that the user has of those that are asked for; 401 for a wrong password."""
        if request.method != "GET":
            return web.Response(status=405)
        user = _user(request)
        if user and self.passwords.get(user[0]) != user[1]:
            return web.json_response({"details": "wrong password"}, status=401)
        account = user[0] if user else ""
        # docker sends each scope by itself, others several in one.
        scopes = tuple(" ".join(request.query.getall("scope", [])).split())
        self.asked.append((account, scopes))
        return web.json_response(
            {
                "token": self.token(account, scopes),
                "expires_in": self.lives,
                "issued_at": datetime.datetime.now(datetime.UTC).isoformat(),
            }
        )

    def token(self, account: str, scopes: Sequence[str]) -> str:
        """A signed token with what this user may do of what these scopes ask for."""
        now = datetime.datetime.now(datetime.UTC)
        claims = {
            "iss": _ISSUER,
            "sub": account,
            "aud": _SERVICE,
            "exp": now + datetime.timedelta(seconds=self.lives),
            "nbf": now - datetime.timedelta(seconds=10),
            "iat": now,
            "jti": uuid.uuid4().hex,
            "access": [granted for scope in scopes if (granted := self._granted(account, scope))["actions"]],
        }
        der = self._certificate.public_bytes(serialization.Encoding.DER)
        chain = {"x5c": [base64.b64encode(der).decode()]}
        return jwt.encode(claims, self._key, algorithm="ES256", headers=chain)

    def _granted(self, account: str, scope: str) -> dict[str, object]:
        kind, name, actions = scope.split(":", 2)
        may = {
            action
            for right in self.rights
            if right.user in ("", account) and fnmatch.fnmatchcase(name, right.repositories)
            for action in right.actions
        }
        wanted = actions.split(",")
        return {"type": kind, "name": name, "actions": [action for action in wanted if action in may]}


@contextlib.asynccontextmanager
async def token_registry(folder: Path, service: TokenService) -> AsyncIterator[Server]:
    """A stock registry that wants a token of this service, which runs as long."""
    runner = web.ServerRunner(web.Server(service.answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    service.url = f"http://127.0.0.1:{runner.addresses[0][1]}/token"
    known = write(folder / "tokens.pem", service.bundle())
    guarded = {
        "auth": {
            "token": {
                "realm": service.url,
                "service": _SERVICE,
                "issuer": _ISSUER,
                "rootcertbundle": str(known),
            }
        }
    }
    try:
        async with stock_registry(folder, sections=guarded) as server:
            yield server
    finally:
        await runner.cleanup()


def _certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, _ISSUER)])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    return builder.not_valid_before(now - _DAY).not_valid_after(now + _DAY).sign(key, hashes.SHA256())


def _user(request: web.BaseRequest) -> tuple[str, str] | None:
    said = request.headers.get("Authorization", "")
    if not said.startswith("Basic "):
        return None
    user, _, password = base64.b64decode(said.removeprefix("Basic ")).decode().partition(":")
    return user, password
