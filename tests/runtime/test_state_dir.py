"""The state folder: where no journal can be kept nobody starts, and where it is gone with the power somebody is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from inspector.records import ConfigError
from inspector.runtime import state_dir

MOUNTS = """\
22 1 253:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:25 / /mnt/far\\040away rw - nfs4 server:/export rw
31 22 0:26 / /mnt/memory rw shared:2 master:1 - tmpfs tmpfs rw,size=4096k
32 22 0:27 / /mnt/twice rw - tmpfs tmpfs rw
33 32 0:28 / /mnt/twice rw - cifs //server/share rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/inspector", "ext4"),
        ("/mnt/far away/x", "nfs4"),
        ("/mnt/memory", "tmpfs"),
        ("/mnt/memory2", "ext4"),
        ("/mnt/twice/x", "cifs"),
    ],
)
def test_the_kernel_says_what_a_folder_lies_on(path: str, kind: str, tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert state_dir.filesystem_of(Path(path), mounts) == kind
    assert state_dir.filesystem_of(Path(path), tmp_path / "none") == ""


def test_a_folder_that_can_keep_no_journal_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state_dir.refuse(tmp_path / "not" / "there" / "yet")
    assert not (tmp_path / "not").exists()
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match=r"E_STATE_PERM: .*is no folder"):
            state_dir.refuse(path)
    with pytest.raises(ConfigError, match="E_STATE_FS: /proc/state lies on proc"):
        state_dir.refuse(Path("/proc/state"))
    monkeypatch.setattr(state_dir, "filesystem_of", lambda path: "nfs4")
    with pytest.raises(ConfigError, match=r"E_STATE_FS: .*lies on nfs4.*allowed: a disk of this machine"):
        state_dir.refuse(tmp_path)


def test_memory_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_dir, "filesystem_of", lambda path: "ext4")
    assert state_dir.volatile(tmp_path) == ""
    monkeypatch.setattr(state_dir, "filesystem_of", lambda path: "tmpfs")
    assert "gone with the power" in state_dir.volatile(tmp_path)
    state_dir.refuse(tmp_path)
