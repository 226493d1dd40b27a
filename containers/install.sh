#!/bin/bash
# What happens inside an image while it is built (%post): install.sh cpu|gpu
#
# build.sh binds a folder to /mnt: containers/ (this), source/ (petgan), and what the host needs to reach its mirrors:
# sources.list, apt.conf, pip.conf, ca.crt, proxy.sh. Nothing of /mnt stays in the image.
set -euo pipefail

kind=$1
here=/mnt/containers
python=/opt/petgan/python/bin/python
packages=/opt/petgan/python/lib/python3.11/site-packages
build_packages=(g++ cmake make python3-venv)
packages_to_run=(python3)
[ "$kind" = gpu ] || packages_to_run+=(libtcmalloc-minimal4)

export DEBIAN_FRONTEND=noninteractive PIP_CONFIG_FILE=/mnt/pip.conf PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
export APT_CONFIG=/mnt/apt.conf LC_ALL=C.UTF-8
# /tmp and /var/tmp are the HOST's own while an image is built: nothing is written or removed there.
export TMPDIR=/opt/petgan/tmp
mkdir -p $TMPDIR
[ ! -f /mnt/ca.crt ] || export PIP_CERT=/mnt/ca.crt SSL_CERT_FILE=/mnt/ca.crt
. /mnt/proxy.sh

say() { echo "$(date +%T) $*"; }

say "Debian packages"
apt-get -qq update
apt-get -qq install -y --no-install-recommends "${packages_to_run[@]}" "${build_packages[@]}" >/dev/null

say "Python packages ($(grep -c == $here/requirements-"$kind".txt), pinned by version and digest)"
python3 -m venv /opt/petgan/python
$python -m pip --quiet install --require-hashes --no-deps -r $here/requirements-"$kind".txt

bash $here/horovod.sh "$kind" $python

say "petgan"
mkdir -p /opt/petgan/source /opt/petgan/keras/models
cp -r /mnt/source/. /opt/petgan/source
echo /opt/petgan/source >"$packages/petgan.pth"
printf '#!/bin/sh\nexec %s -m petgan "$@"\n' $python >/opt/petgan/python/bin/petgan
chmod +x /opt/petgan/python/bin/petgan
$python -m compileall -q /opt/petgan/source
cp $here/test.py /opt/petgan/test.py
if [ -f /mnt/weights.h5 ]; then
    name=$($python -c 'from petgan.features import FEATURE_NETWORKS; print(FEATURE_NETWORKS["inception-v3"].cached_weights)')
    install -m 644 /mnt/weights.h5 "/opt/petgan/keras/models/$name"
    weights=$(sha256sum /mnt/weights.h5 | cut -c 1-64)
fi
{
    echo "petgan.version $($python -c 'import petgan; print(petgan.__version__)')"
    echo "petgan.commit $(cat /mnt/commit)"
    echo "petgan.code $($python -c 'from petgan.snapshot import code_digest; print(code_digest())')"
    echo "petgan.weights ${weights:-none}"
} >>"$APPTAINER_LABELS"

say "tidying up"
$python -m pip --quiet uninstall -y pip
rm -rf "$packages"/tensorflow/include "$packages"/nvidia/*/include
find "$packages" -name '*.a' -delete
# Also what only a recommendation or suggestion of another package would keep
apt-get -qq purge -y --auto-remove -o APT::AutoRemove::RecommendsImportant=false \
    -o APT::AutoRemove::SuggestsImportant=false "${build_packages[@]}" >/dev/null
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/* /etc/apt/apt.conf.d/99mmdebstrap /etc/apt/auth.conf.d/*
rm -rf $TMPDIR /root/.keras /root/.config /var/lib/apt/lists/* /var/cache/* /var/log/* /root/.cache /usr/share/{doc,man,info,locale}/*
dpkg-query -W -f '${Package}=${Version}\n' >/opt/petgan/debian-packages.txt
