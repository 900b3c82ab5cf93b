#!/bin/sh
# Installs inspector from this folder, without a network: ./install.sh [--prefix /opt/inspector] [--service]
#   --prefix DIR   where it goes (default /opt/inspector); what is there is replaced only when the new one stands
#   --service      as root: the systemd units, the user `inspector`, and /etc/inspector, as the .deb does it
#   --as DIR       the path it will have later, where that is not the prefix (for packaging)
# Needs Python ($PYTHON, default python3) of the version in this folder's name. Nothing outside the prefix is touched without --service.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
prefix=/opt/inspector as='' service=no
while [ $# -gt 0 ]; do
    case $1 in
        --prefix) prefix=${2:?--prefix DIR} && shift 2 ;;
        --as) as=${2:?--as DIR} && shift 2 ;;
        --service) service=yes && shift ;;
        *) sed -n '2,6s/^# *//p' "$0" >&2 && exit 64 ;;
    esac
done
[ "$service" = no ] || [ "$(id -u)" = 0 ] || { echo "--service needs root" >&2; exit 64; }
[ "$service" = no ] || [ "$prefix" = /opt/inspector ] || { echo "the units look for /opt/inspector: no other --prefix with --service" >&2; exit 64; }
(cd "$here" && sha256sum --quiet -c SHA256SUMS) || { echo "this bundle is damaged" >&2; exit 1; }
mkdir -p "$(dirname "$prefix")"
prefix=$(cd "$(dirname "$prefix")" && pwd)/$(basename "$prefix")
as=${as:-$prefix}

new=$prefix.new
rm -rf "$new"
"${PYTHON:-python3}" -m venv --without-pip "$new"
pip() { PYTHONPATH=$(echo "$here"/wheels/pip-*.whl) PYTHONDONTWRITEBYTECODE=1 "$new/bin/python" -m pip -q --isolated --disable-pip-version-check "$@"; }
pip install --no-index --no-deps --no-compile --require-hashes --find-links "$here/wheels" -r "$here/requirements.txt"
pip install --no-index --no-deps --no-compile --find-links "$here/wheels" inspector
find "$new/bin" -type f ! -name inspector -delete
sed -i "1s|^#!.*|#!$as/bin/python|" "$new/bin/inspector"
sed -i "s|$new|$as|g" "$new/pyvenv.cfg"
find "$new" -type d -name __pycache__ -prune -exec rm -rf {} +
"$new/bin/python" -I -m compileall -q -j0 --invalidation-mode unchecked-hash -s "$new" -p "$as" "$new/lib" || true # test data of libraries may not compile
"$new/bin/python" -I -m inspector --version > /dev/null
rm -rf "$prefix.old"
[ ! -e "$prefix" ] || mv "$prefix" "$prefix.old"
mv "$new" "$prefix"
rm -rf "$prefix.old"
echo "installed: $as/bin/inspector"

if [ "$service" = yes ]; then
    cp "$here"/systemd/*.service /etc/systemd/system/
    install -D -m 644 "$here/systemd/inspector.sysusers" /etc/sysusers.d/inspector.conf
    systemd-sysusers inspector.conf
    install -d -m 750 -g inspector /etc/inspector
    install -d -m 750 -g inspector /etc/inspector/keys
    [ -e /etc/default/inspector ] || install -m 644 "$here/systemd/inspector.default" /etc/default/inspector
    [ ! -d /run/systemd/system ] || systemctl daemon-reload
    echo "next: inspector setup /etc/inspector/line.yaml, then systemctl enable --now inspector"
fi
