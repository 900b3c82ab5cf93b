#!/bin/sh
# Backs up a line, without stopping it: configuration, keys, journal (whole and proved),
# what people did and said at the page:                                                        backup.sh OUT.tar [with-pictures]
# Restores one on a machine where inspector is installed and stopped:                          backup.sh --restore IN.tar
# As root. The archive holds the line's keys: keep it where the keys may be.
set -eu
umask 077
inspector=/opt/inspector/bin/inspector state=${STATE:-/var/lib/inspector}
case ${1:-} in
    --restore)
        ! systemctl -q is-active inspector || { echo "stop it first: systemctl stop inspector" >&2; exit 1; }
        aside=$state.$(date -u +%Y%m%dT%H%M%SZ)
        [ ! -e "$state" ] || { mv "$state" "$aside" && echo "what was there is now $aside"; }
        tar -C / -xpf "${2:?--restore IN.tar}"
        "$inspector" journal verify "$state"
        chown -R inspector:inspector "$state"
        exit 0 ;;
    '' | -*) sed -n '2,5s/^# *//p' "$0" >&2; exit 64 ;;
esac
out=$(realpath "$1")
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
mkdir -p "$work$state"
# The witness first: it must never say more than the journal does.
for file in journal.head anchors.log in-force.yaml selected.json; do [ ! -e "$state/$file" ] || cp -p "$state/$file" "$work$state/"; done
/opt/inspector/bin/python - "$state/journal.sqlite" "$work$state/journal.sqlite" <<'END'
import sqlite3, sys
with sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True) as ours, sqlite3.connect(sys.argv[2]) as copy:
    ours.backup(copy)
END
"$inspector" journal verify "$work$state"
rm -f "$work$state"/journal.sqlite-*
tar -cpf "$out" -C "$work" ".$state" -C / etc/inspector $([ ! -e /etc/default/inspector ] || echo etc/default/inspector)
[ ! -e "$state/desk" ] || tar -rpf "$out" -C / ".$state/desk"
[ "${2:-}" != with-pictures ] || tar -rpf "$out" -C / ".$state/pictures"
