#!/usr/bin/env bash
# Everything that is shipped, into OUT (default dist/): wheel, SBOM, a bundle for machines without a network, and a .deb with a virtual environment inside.
#   make package            PACKAGE_PYTHON=/usr/bin/python3 is whose environment the .deb carries: the one of the machines it is for
# The same commit gives the same wheel and the same bundle, byte by byte.
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=${1:?usage: build.sh VENV/bin [OUT]} out=${2:-dist}
python=${PACKAGE_PYTHON:-/usr/bin/python3}
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)} PIP_DISABLE_PIP_VERSION_CHECK=1
umask 022
rm -rf "$out" && mkdir -p "$out" && out=$(cd "$out" && pwd)
sums() { (cd "$out" && sha256sum -- * > SHA256SUMS); }
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT

"$bin/python" -m pip wheel -q --no-deps --no-build-isolation -w "$out" .
wheel=$(echo "$out"/inspector-*.whl)
version=${wheel##*/inspector-} version=${version%%-*}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$python is no Python 3.11 or later: no bundle and no .deb"; exit 1; }
abi=$("$python" -c 'import sys; print(f"cp{sys.version_info.major}{sys.version_info.minor}")')
machine=$(uname -m)

# -- the bundle: wheels by their hashes, and an installer that needs a Python and nothing else
name=inspector-$version-$abi-linux_$machine
bundle=$work/$name
mkdir -p "$bundle/wheels"
sed -n '/^pip==/,/# via/p' deploy/requirements/dev.txt > "$work/pip.txt"
for lock in deploy/requirements/run.txt "$work/pip.txt"; do
    "$bin/python" -m pip download -q --python-version "${abi#cp}" --only-binary :all: --no-deps --require-hashes -d "$bundle/wheels" -r "$lock"
done
cp "$wheel" "$bundle/wheels/"
cp deploy/requirements/run.txt "$bundle/requirements.txt"
cp deploy/package/install.sh deploy/OPERATIONS.md "$bundle/"
mkdir "$bundle/systemd"
cp deploy/*.service deploy/inspector.sysusers deploy/inspector.default "$bundle/systemd/"
(cd "$bundle" && find . -type f ! -name SHA256SUMS -print0 | sort -z | xargs -0 sha256sum > SHA256SUMS)
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -C "$work" -cf - "$name" | gzip -n > "$out/$name.tar.gz"

# -- what the .deb carries is installed from the bundle; what is in it is what the SBOM names
root=$work/deb
PYTHON=$python "$bundle/install.sh" --prefix "$root/opt/inspector" --as /opt/inspector > /dev/null
"$bin/python" -m cyclonedx_py environment --gather-license-texts --pyproject pyproject.toml --output-reproducible --of JSON -o "$out/inspector-$version.cdx.json" \
    "$root/opt/inspector/bin/python" 2> /dev/null

if ! command -v dpkg-deb > /dev/null; then
    echo "no dpkg-deb here: no .deb"
    sums
    exit 0
fi
mkdir -p "$root"/{DEBIAN,usr/bin,usr/lib/sysusers.d,lib/systemd/system,etc/default,etc/inspector,usr/share/doc/inspector}
ln -s /opt/inspector/bin/inspector "$root/usr/bin/inspector"
cp deploy/*.service "$root/lib/systemd/system/"
cp deploy/inspector.sysusers "$root/usr/lib/sysusers.d/inspector.conf"
cp deploy/inspector.default "$root/etc/default/inspector"
cp deploy/OPERATIONS.md deploy/metrics.md "$out/inspector-$version.cdx.json" "$root/usr/share/doc/inspector/"
cp deploy/package/debian/copyright "$root/usr/share/doc/inspector/"
for script in postinst prerm postrm; do install -m 755 "deploy/package/debian/$script" "$root/DEBIAN/$script"; done
echo /etc/default/inspector > "$root/DEBIAN/conffiles"
next=$("$python" -c 'import sys; print(f"{sys.version_info.major}.{sys.version_info.minor + 1}")')
this=$("$python" -c 'import sys; print(f"{sys.version_info.major}.{sys.version_info.minor}")')
sed -e "s/@VERSION@/$version/; s/@ARCHITECTURE@/$(dpkg --print-architecture)/; s/@THIS@/$this/; s/@NEXT@/$next/" \
    -e "s/@SIZE@/$(du -sk --exclude=DEBIAN "$root" | cut -f1)/" deploy/package/debian/control > "$root/DEBIAN/control"
find "$root" -newermt "@$SOURCE_DATE_EPOCH" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group -Zzstd --build "$root" "$out/inspector_${version}_$(dpkg --print-architecture).deb" > /dev/null
sums
