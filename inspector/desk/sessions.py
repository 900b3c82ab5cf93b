"""Who is logged in: sessions in memory, which end with the desk, and a limit for guessing."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass

from inspector.desk.users import Role, User, Users
from inspector.interfaces import Clock

MOST_SESSIONS = 256
MOST_WATCHED = 1024
WRONG_WITHIN_NS = 300 * 10**9
WRONG_OF_ONE, WRONG_OF_ALL = 10, 60
"""So many wrong passwords within five minutes, for one name from one address and from everywhere, and the next is not looked at."""


@dataclass(frozen=True, slots=True)
class Who:
    """Who asks. `csrf` is what each form must send back; `name` is empty for whoever is not logged in."""

    name: str
    role: Role | None
    csrf: str

    def may(self, role: Role) -> bool:
        """At least this role."""
        return self.role is not None and self.role >= role


@dataclass(slots=True)
class _Session:
    user: User
    csrf: str
    began_ns: int
    seen_ns: int


class Sessions:
    """All sessions; with no users everybody is a viewer. Safe from several threads."""

    def __init__(self, users: Users | None, *, idle_ns: int, longest_ns: int, clock: Clock) -> None:
        self._users, self._idle_ns, self._longest_ns, self._clock = users, idle_ns, longest_ns, clock
        self._lock = threading.Lock()
        self._sessions: OrderedDict[bytes, _Session] = OrderedDict()
        self._wrong: OrderedDict[tuple[str, str], deque[int]] = OrderedDict()
        self._nobody = Who("", Role.VIEWER if users is None else None, secrets.token_hex(32))

    @property
    def logins(self) -> bool:
        """There are users, so nobody sees anything without a login."""
        return self._users is not None

    def who(self, token: str, *, clicked: bool = True) -> Who:
        """Whose token it is; `clicked`: a person did something, so the session is not idle."""
        nobody = self._nobody
        if self._users is None or not token:
            return nobody
        key, now = _key(token), self._clock()
        with self._lock:
            session = self._sessions.get(key)
            if session is None:
                return nobody
            if self._ended(session, now) or self._users.all().get(session.user.name) != session.user:
                del self._sessions[key]
                return nobody
            if clicked:
                session.seen_ns = now
            return Who(session.user.name, session.user.role, session.csrf)

    def _ended(self, session: _Session, now_ns: int) -> bool:
        return now_ns - session.seen_ns > self._idle_ns or now_ns - session.began_ns > self._longest_ns

    def held(self, name: str, address: str) -> bool:
        """Too many wrong passwords lately."""
        now = self._clock()
        with self._lock:
            lately = [sum(now - at < WRONG_WITHIN_NS for at in times) for times in self._wrong.values()]
            one = sum(now - at < WRONG_WITHIN_NS for at in self._wrong.get((address, name), ()))
        return one >= WRONG_OF_ONE or sum(lately) >= WRONG_OF_ALL

    def log_in(self, name: str, password: str, address: str) -> str | None:
        """The token of a new session; None for a wrong name or password, which is counted."""
        user = None if self._users is None else self._users.check(name, password)
        now = self._clock()
        with self._lock:
            if user is None:
                times = self._wrong.setdefault((address, name[:32]), deque(maxlen=WRONG_OF_ALL))
                times.append(now)
                self._wrong.move_to_end((address, name[:32]))
                while len(self._wrong) > MOST_WATCHED:
                    self._wrong.popitem(last=False)
                return None
            self._wrong.pop((address, name), None)
            token = secrets.token_urlsafe(32)
            self._sessions[_key(token)] = _Session(user, secrets.token_urlsafe(24), now, now)
            while len(self._sessions) > MOST_SESSIONS:
                self._sessions.popitem(last=False)
            return token

    def log_out(self, token: str) -> None:
        """End the session."""
        with self._lock:
            self._sessions.pop(_key(token), None)

    def end_all_of(self, name: str) -> int:
        """End every session of a user; how many there were."""
        with self._lock:
            keys = [key for key, session in self._sessions.items() if session.user.name == name]
            for key in keys:
                del self._sessions[key]
        return len(keys)

    def users(self) -> list[tuple[str, str, int]]:
        """(name, role, open sessions) of everybody who may log in."""
        known = {} if self._users is None else self._users.all()
        now = self._clock()
        with self._lock:
            live = [s.user.name for s in self._sessions.values() if not self._ended(s, now)]
        return [(name, user.role.name.lower(), live.count(name)) for name, user in sorted(known.items())]


def _key(token: str) -> bytes:
    """Tokens are kept as their digests: who can read our memory's dump cannot use them, and looking one up tells nothing by its time."""
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
