#!/bin/sh
# Backs up a line, without stopping it: configuration, keys, journal (whole and proved), what was learnt of its pictures,
# what people did and said at the page:                                                        backup.sh OUT.tar [with-pictures]
# Restores one on a machine where inspector is installed and stopped:                          backup.sh --restore IN.tar
# As root. The archive holds the line's keys: keep it where the keys may be.
set -eu
umask 077
bin=${BIN:-/opt/inspector/bin} state=${STATE:-/var/lib/inspector} root=${ROOT:-}

restore() {
    ! systemctl -q is-active inspector || { echo "stop it first: systemctl stop inspector" >&2; exit 1; }
    # Unpacked and proved beside what is there, and only then put in its place: an archive that cannot be restored changes nothing.
    mkdir -p "$root${state%/*}"
    new=$(mktemp -d "$root$state.new.XXXXXX") && trap 'rm -rf "$new"' EXIT
    tar -C "$new" -xpf "$1"
    for part in "$state/journal.sqlite" /etc/inspector; do
        [ -e "$new$part" ] || { echo "$1 is no backup of a line: it holds no $part" >&2; exit 1; }
    done
    "$bin/inspector" journal verify "$new$state"
    chown -R inspector:inspector "$new$state"
    aside=$(date -u +%Y%m%dT%H%M%SZ) moved=
    trap 'exit 1' HUP INT TERM
    trap 'for part in $moved; do back "$part" || :; done; rm -rf "$new"' EXIT
    for part in "$state" /etc/inspector /etc/default/inspector; do
        [ -e "$new$part" ] || continue
        moved="$part $moved"
        mkdir -p "$root${part%/*}"
        [ ! -e "$root$part" ] || mv "$root$part" "$root$part.$aside"
        mv "$new$part" "$root$part"
    done
    for part in $moved; do [ ! -e "$root$part.$aside" ] || echo "what was there is now $root$part.$aside"; done
    moved=
    echo "the keys are those of the backup: who was taken off $root/etc/inspector/keys/clients since may connect again"
}

back() {
    [ ! -e "$root$1.$aside" ] || { rm -rf "$root$1" && mv "$root$1.$aside" "$root$1" && echo "$root$1 is as it was" >&2; }
}

case ${1:-} in
    --restore)
        [ -r "${2:-}" ] || { echo "--restore IN.tar: there is no readable archive '${2:-}'" >&2; exit 64; }
        restore "$2"
        exit 0 ;;
    '' | -*) sed -n '2,5s/^# *//p' "$0" >&2; exit 64 ;;
esac
out=$(realpath "$1")
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
from=$root$state to=$work$state
mkdir -p "$to/quality"
# The witness first: it must never say more than the journal does.
for file in journal.head anchors.log in-force.yaml selected.json; do [ ! -e "$from/$file" ] || cp -p "$from/$file" "$to/"; done
"$bin/python" - "$from/journal.sqlite" "$to/journal.sqlite" <<'END'
import sqlite3, sys
with sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True) as ours, sqlite3.connect(sys.argv[2]) as copy:
    ours.backup(copy)
END
"$bin/inspector" journal verify "$to"
rm -f "$to"/journal.sqlite-*
for file in "$from"/quality/*.npz; do [ ! -e "$file" ] || cp -p "$file" "$to/quality/"; done
tar -cpf "$out" -C "$work" ".$state" -C "$root/" etc/inspector $([ ! -e "$root/etc/default/inspector" ] || echo etc/default/inspector)
[ ! -e "$from/desk" ] || tar -rpf "$out" -C "$root/" ".$state/desk"
[ "${2:-}" != with-pictures ] || tar -rpf "$out" -C "$root/" ".$state/pictures"
