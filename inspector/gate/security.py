"""Who may connect: CURVE keys, the list of clients, and the answers of ZAP (RFC 27). Pure but for reading files; the `zap` thread asks.

libzmq's CURVE fails open: without a handler that is asked (`ZAP_DOMAIN` with `ZAP_ENFORCE_DOMAIN`) an unknown key is let in. So both are
set on every socket, the handler runs before anything is bound, and a probe with a key that nobody knows must be refused at start.

A key file is text, for its owner's eyes only (0600, or a credential of systemd): `public: …`, `secret: …` (Z85, 40 characters) and, for a
client, `server: …`. The
list of clients has a line for each key: `PUBLIC_KEY ROLE NAME`; two lines with the same name are a change of keys under way. Roles: gate
(a PLC's gateway), scada (reads events and replays), replay (the same, for historians).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import zmq.utils.z85
from zmq import curve_keypair, curve_public

from inspector.records import ConfigError

SERVER_KEY: Final = "server.key"
CREDENTIALS, CREDENTIAL = "CREDENTIALS_DIRECTORY", f"keys_{SERVER_KEY}"
"""Where systemd shows a service its credentials, and how it calls the server's key there (`LoadCredential=keys:` with a folder)."""

ROLES: Final = ("gate", "scada", "replay")
MAY: Final[Mapping[str, frozenset[str]]] = {
    "insp-gate": frozenset({"gate"}),
    "insp-events": frozenset({"gate", "scada", "replay"}),
    "insp-replay": frozenset({"gate", "scada", "replay"}),
}
"""Which roles a socket's domain lets in."""

_PUBLISHED: Final = frozenset(
    {
        "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID",  # client, public and secret
        "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs",
        "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7",  # server
        "JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6",
    }
)
"""The test keys that libzmq's documentation prints."""


class Pair(NamedTuple):
    """A CURVE key pair, Z85; `server` is the daemon's public key in a client's file, empty in the daemon's."""

    public: bytes
    secret: bytes
    server: bytes = b""

    def __repr__(self) -> str:
        return f"Pair(public={self.public!r})"


@dataclass(frozen=True, slots=True)
class Client:
    """Who a public key belongs to."""

    name: str
    role: str


def _key(text: str, what: str, path: Path) -> bytes:
    try:
        if len(text) != 40 or len(zmq.utils.z85.decode(text.encode())) != 32:
            raise ValueError
    except (ValueError, KeyError, IndexError, AssertionError) as error:
        raise ConfigError("E_KEY_FORMAT", f"{what}: 40 characters of Z85 are allowed", file=str(path)) from error
    if text in _PUBLISHED:
        raise ConfigError("E_KEY_TEST", f"{what}: this key is printed in libzmq's documentation", file=str(path))
    return text.encode()


def read_pair(path: Path) -> Pair:
    """The keys in a file. Raises `ConfigError`: E_KEY_OPEN, E_KEY_MODE, E_KEY_FORMAT, E_KEY_TEST, E_KEY_ROLE; no text holds a key.

    Outside the unit there is no `CREDENTIAL`, and the file that it is made of is read.
    """
    given = os.environ.get(CREDENTIALS)
    if path.name == CREDENTIAL and not given:
        path = path.with_name(SERVER_KEY)
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        hint = "; the unit gives it with LoadCredential=" if CREDENTIALS in str(path) or "credentials" in path.parts else ""
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError("E_KEY_OPEN", f"{why}{hint}", file=str(path)) from error
    if mode & (0o037 if given and path.parent == Path(given) else 0o077):  # systemd gives it by an ACL, which looks like the group's
        raise ConfigError("E_KEY_MODE", f"mode {mode:04o}; 0600 or 0400 is allowed (chmod 600)", file=str(path))
    said = dict(line.split(":", 1) for line in text.splitlines() if ":" in line and not line.startswith("#"))
    fields = {name.strip(): value.strip() for name, value in said.items()}
    if "secret" not in fields or "public" not in fields:
        raise ConfigError("E_KEY_ROLE", "a key file has a public and a secret key", file=str(path))
    public, secret = _key(fields["public"], "public", path), _key(fields["secret"], "secret", path)
    if curve_public(secret) != public:
        raise ConfigError("E_KEY_ROLE", "the secret key does not belong to the public one", file=str(path))
    return Pair(public, secret, _key(fields["server"], "server", path) if "server" in fields else b"")


def read_client_pair(path: Path) -> Pair:
    """The keys in a client's file, which has the daemon's public key too. Raises `ConfigError` as `read_pair`."""
    pair = read_pair(path)
    if not pair.server:
        text = "no `server:` (the daemon's public key) in it; a client's key file is allowed, as `inspector keys new` writes it"
        raise ConfigError("E_KEY_ROLE", text, file=str(path))
    return pair


def read_clients(path: Path) -> dict[bytes, Client]:
    """Public key (Z85) → client. Raises `ConfigError` E_KEY_OPEN, E_KEY_FORMAT, E_KEY_ROLE with the line."""
    try:
        lines = path.read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("E_KEY_OPEN", str(error), file=str(path)) from error
    clients = {}
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if len(words) != 3 or words[1] not in ROLES:
            raise ConfigError("E_KEY_ROLE", "PUBLIC_KEY gate|scada|replay NAME is allowed", file=str(path), line=number)
        clients[_key(words[0], "public", path)] = Client(words[2][:64], words[1])
    return clients


def answer(frames: Sequence[bytes], clients: Mapping[bytes, Client]) -> list[bytes]:
    """The reply to a ZAP request: 200 with the client's name as User-Id, or 400. What is not understood is refused."""
    version, request, domain, _, _, mechanism, *credentials = [*frames, b"", b"", b"", b"", b"", b"", b""][: max(7, len(frames))]
    client = None
    if version == b"1.0" and mechanism == b"CURVE" and len(credentials) == 1 and len(credentials[0]) == 32:
        client = clients.get(zmq.utils.z85.encode(credentials[0]))
    if client is None or client.role not in MAY.get(domain.decode("ascii", "replace"), frozenset()):
        return [b"1.0", request, b"400", b"not allowed", b"", b""]
    return [b"1.0", request, b"200", b"OK", client.name.encode(), b""]


def write_pair(path: Path, *, server: bytes = b"") -> Pair:
    """Make new keys and write them for the owner's eyes only; an existing file is never overwritten (`ConfigError` E_KEY_EXISTS)."""
    public, secret = curve_keypair()
    lines = [f"public: {public.decode()}", f"secret: {secret.decode()}", *([f"server: {server.decode()}"] if server else [])]
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ConfigError("E_KEY_EXISTS", "a key is there already; move it away first", file=str(path)) from error
    except OSError as error:
        raise ConfigError("E_KEY_OPEN", str(error.strerror), file=str(path)) from error
    with os.fdopen(descriptor, "w") as file:
        file.write("\n".join(lines) + "\n")
    return Pair(public, secret, server)
