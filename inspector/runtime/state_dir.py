"""The folder in which a daemon keeps what must outlive it: whether it can, before anything is made there."""

from __future__ import annotations

import os
import re
from pathlib import Path

from inspector.records import ConfigError

UNFIT = frozenset(
    {"afs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "fuse.sshfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3", "smbfs"}
    | {"cgroup2", "proc", "sysfs"}
)
"""On a network SQLite's locks and the disk's promises do not hold, and what the kernel makes up keeps no files."""
VOLATILE = {
    **dict.fromkeys(("ramfs", "tmpfs"), "in memory: the journal is gone with the power"),
    "overlay": "in a container's own layer: the journal is gone with the container",
}
"""What becomes of what lies there."""


def refuse(path: Path) -> None:
    """Raises `ConfigError` where no journal can be kept at this path: E_STATE_PERM, or E_STATE_FS for the file system. Makes nothing.

    Rights are looked at where the folder, or the nearest above it, is this user's own: the daemon may run as another one.
    """
    here = _nearest(path)
    if not here.is_dir():
        raise ConfigError("E_STATE_PERM", f"{path}: {here} is no folder; allowed: a folder on a disk of this machine")
    if (kind := filesystem_of(here)) in UNFIT:
        raise ConfigError("E_STATE_FS", f"{path} lies on {kind}, which keeps no journal; allowed: a disk of this machine")
    if os.statvfs(here).f_flag & os.ST_RDONLY:
        raise ConfigError("E_STATE_PERM", f"{path}: {here} is on a file system that is read only; allowed: a folder that can be written")
    if here.stat().st_uid == os.geteuid() and not os.access(here, os.W_OK | os.X_OK):
        raise ConfigError("E_STATE_PERM", f"{path}: user {os.geteuid()} must be able to write to {here}")


def volatile(path: Path) -> str:
    """What is wrong with a folder that does not outlive the machine's power or the container; nothing where it lies on a disk."""
    kind = filesystem_of(_nearest(path))
    return f"{path} lies on {kind}, {VOLATILE[kind]}" if kind in VOLATILE else ""


def filesystem_of(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The kind of the file system that a path is on, as the kernel calls it ("ext4"); empty where nobody says."""
    found, longest, real = "", -1, path.resolve()
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return ""
    for line in lines:  # … root mount-point options … - kind device options; a later one covers an earlier one
        place, _, rest = line.partition(" - ")
        mounted = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), place.split(" ")[4]))
        if len(mounted.parts) >= longest and real.is_relative_to(mounted):
            found, longest = rest.split(" ")[0], len(mounted.parts)
    return found


def _nearest(path: Path) -> Path:
    """The path, or the nearest folder above it that there is."""
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return path
