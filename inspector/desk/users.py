"""Who may log in at the page: a file with one line for each user, `name role scrypt$log2(n)$r$p$salt$hash`.

It is written by `inspector desk-user`, is for its owner only (0600), and holds no password. The desk reads it again when it has changed, so
whoever is taken out of it, or is given another role or password, is logged out at once.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
import threading
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from inspector.config.document import nearest
from inspector.records import ConfigError

LOG2_N, BLOCK, PARALLEL = 15, 8, 3
"""32 MiB and three passes: one of the equivalent settings of the OWASP Password Storage Cheat Sheet."""
LEAST_PASSWORD, LARGEST_PASSWORD_BYTES = 10, 1024
LARGEST_FILE_BYTES = 1 << 20
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")


class Role(IntEnum):
    """Who may do what; each may do what those before it may."""

    VIEWER = 0
    OPERATOR = 1
    ENGINEER = 2
    ADMIN = 3


ROLES = {role.name.lower(): role for role in Role}


@dataclass(frozen=True, slots=True)
class User:
    """One line of the file; `secret` is its last word."""

    name: str
    role: Role
    secret: str


def secret_of(password: str) -> str:
    """What is kept of a password."""
    salt = secrets.token_bytes(16)
    return f"scrypt${LOG2_N}${BLOCK}${PARALLEL}${_text(salt)}${_text(_scrypt(password, salt, LOG2_N, BLOCK, PARALLEL))}"


def fits(password: str, secret: str) -> bool:
    """The password is the one that this was made of."""
    _, log2_n, block, parallel, salt, kept = secret.split("$")
    if len(password.encode("utf-8", "replace")) > LARGEST_PASSWORD_BYTES:
        password = ""
    return hmac.compare_digest(_scrypt(password, _bytes(salt), int(log2_n), int(block), int(parallel)), _bytes(kept))


def read(path: Path) -> dict[str, User]:
    """The users by name. Raises `ConfigError`: E_USERS_OPEN when the file cannot be read or others may, E_USERS_LINE for a bad line."""
    try:
        mode = path.stat().st_mode
        text = path.read_bytes()[:LARGEST_FILE_BYTES].decode("ascii", "replace")
    except OSError as error:
        raise ConfigError("E_USERS_OPEN", f"{error.strerror}; `inspector desk-user` writes it", file=str(path), key="desk.users") from error
    if mode & 0o077:
        raise ConfigError("E_USERS_OPEN", f"others may read it (mode {mode & 0o777:o}); chmod 600", file=str(path), key="desk.users")
    found: dict[str, User] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if line and not line.startswith("#"):
            user = _user(line)
            if user is None or user.name in found:
                said = "the name stands there twice" if user else "no user; allowed: NAME ROLE scrypt$…, as `inspector desk-user` writes it"
                raise ConfigError("E_USERS_LINE", said, file=str(path), line=number)
            found[user.name] = user
    return found


def write(path: Path, users: Mapping[str, User], *, owner: Path | None = None) -> None:
    """Put these users into the file, whole or not at all. It stays whose it was; a new one that root makes is given to whose `owner` is.

    Raises `ConfigError` E_USERS_OPEN.
    """
    lines = "".join(f"{u.name} {u.role.name.lower()} {u.secret}\n" for _, u in sorted(users.items()))
    beside = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        beside.unlink(missing_ok=True)
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write("# Who may log in at the page; written by `inspector desk-user`.\n" + lines)
            file.flush()
            os.fsync(file.fileno())
        like = path if path.exists() else owner if os.geteuid() == 0 else None
        if like is not None and like.exists():
            os.chown(beside, like.stat().st_uid, like.stat().st_gid)
        beside.rename(path)
    except OSError as error:
        raise ConfigError("E_USERS_OPEN", f"{error.strerror}", file=str(path), key="desk.users") from error


def new(name: str, role: str, password: str) -> User:
    """A user. Raises `ConfigError` E_USAGE for a bad name, role or password."""
    if not _NAME.fullmatch(name):
        raise ConfigError("E_USAGE", f"{name[:40]!r}; allowed: 1 to 32 of a-z 0-9 . _ -, a letter or digit first", key="NAME")
    if role not in ROLES:
        raise ConfigError("E_USAGE", f"{role[:40]!r}; allowed: {', '.join(ROLES)}{nearest(role, ROLES)}", key="ROLE")
    if len(password) < LEAST_PASSWORD or len(password.encode("utf-8", "replace")) > LARGEST_PASSWORD_BYTES or password.lower() == name:
        text = f"a password has at least {LEAST_PASSWORD} characters, at most {LARGEST_PASSWORD_BYTES} bytes, and is not the name"
        raise ConfigError("E_USAGE", text)
    return User(name, ROLES[role], secret_of(password))


class Users:
    """The file, read again when it changes. Safe from several threads; hashes one password at a time, which bounds memory and guessing."""

    def __init__(self, path: Path) -> None:
        """Raises `ConfigError` when the file cannot be used."""
        self._path = path
        self._stamp = self._stamped()
        self._users = read(path)
        self._nobody = secret_of(secrets.token_urlsafe())
        self._lock = threading.Lock()

    def _stamped(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def all(self) -> dict[str, User]:
        """Who may log in now; nobody while the file cannot be used."""
        stamp = self._stamped()
        if stamp != self._stamp:
            try:
                self._users = read(self._path)
            except ConfigError:
                self._users = {}
            self._stamp = stamp
        return self._users

    def check(self, name: str, password: str) -> User | None:
        """The user with this name and password. An unknown name takes as long as a wrong password."""
        user = self.all().get(name)
        with self._lock:
            right = fits(password, self._nobody if user is None else user.secret)
        return user if right else None


def _user(line: str) -> User | None:
    name, role, secret = (*line.split(" "), "", "", "")[:3]
    shape = re.fullmatch(r"scrypt\$(\d{1,2})\$(\d{1,2})\$(\d{1,2})\$[A-Za-z0-9_-]{16,64}\$[A-Za-z0-9_-]{40,90}", secret)
    known = bool(_NAME.fullmatch(name)) and role in ROLES and len(line.split(" ")) == 3
    if not known or not shape or not (14 <= int(shape[1]) <= 17 and 1 <= int(shape[2]) <= 8 and 1 <= int(shape[3]) <= 16):
        return None
    return User(name, ROLES[role], secret)


def _scrypt(password: str, salt: bytes, log2_n: int, block: int, parallel: int) -> bytes:
    plain = unicodedata.normalize("NFC", password).encode("utf-8", "replace")
    return hashlib.scrypt(plain, salt=salt, n=1 << log2_n, r=block, p=parallel, maxmem=256 << 20, dklen=32)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
