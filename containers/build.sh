#!/usr/bin/env bash
# Build an image, unprivileged (--fakeroot) or as root.
#
#   build.sh cpu|gpu [--weights FILE] [--output FILE]    build, unless it is there already; prints its path
#   build.sh --name cpu|gpu [--weights FILE]             print the name that it would get
#
# Images lie in ${PETGAN_IMAGES:-~/.cache/petgan/images}, named by the content that they are built from: definition,
# scripts, pinned packages, petgan's version, weights. petgan's own files do not count: a run takes its experiment's
# snapshot of the code, and the image's labels say which commit it holds.
#
# The base comes from a container registry where one can be reached, otherwise from the Debian mirror. Mirrors,
# proxies, certificates and pip's settings are this machine's; none of them stays in the image.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# In a checkout petgan stands beside this folder; in an installed package this folder stands inside of it.
if [ -d "$here/../petgan" ]; then package=$(cd "$here/../petgan" && pwd); else package=$(dirname "$here"); fi
images=${PETGAN_IMAGES:-$HOME/.cache/petgan/images}
python=${PYTHON:-python3}

die() {
    echo "build.sh: $1" >&2
    exit "${2:-1}"
}

kind='' weights='' output='' only_name=''
while [ $# -gt 0 ]; do
    case $1 in
        cpu | gpu) kind=$1 ;;
        --name) only_name=yes ;;
        --weights | --output)
            [ $# -gt 1 ] || die "$1 wants a file" 2
            declare "${1#--}=$2"
            shift
            ;;
        *) die "'$1' is not understood; write: build.sh cpu|gpu [--weights FILE] [--output FILE]" 2 ;;
    esac
    shift
done
[ -n "$kind" ] || die "which image? write cpu or gpu" 2
[ -z "$weights" ] || [ -f "$weights" ] ||
    die "there is no weights file $weights; give an .h5 file, or leave --weights out" 2

name() {
    local version digest parts=(petgan-"$kind".def install.sh horovod.sh test.py)
    parts+=(requirements-"$kind".txt requirements-build.txt)
    [ "$kind" = cpu ] || parts+=(requirements-build-gpu.txt)
    version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$package/__init__.py")
    digest=$({
        (cd "$here" && sha256sum "${parts[@]}")
        echo "petgan $version"
        [ -z "$weights" ] || sha256sum <"$weights"
    } | sha256sum | cut -c 1-12)
    echo "petgan-$kind-$digest.sif"
}

name=$(name)
[ -z "$only_name" ] || { echo "$name"; exit; }
cached=$images/$name
target=${output:-$cached}
if [ -f "$cached" ]; then
    echo "already built" >&2
    [ -z "$output" ] || { cp "$cached" "$output.$$.part" && mv "$output.$$.part" "$output"; }
    echo "$target"
    exit
fi
command -v apptainer >/dev/null ||
    die "there is no apptainer on PATH; ask your site, or on Debian 12 run slurm/testbed/apptainer.sh install"

mkdir -p "$images" "$(dirname "$target")"
work=$(mktemp -d "$images/.build.XXXXXX")
part=$(dirname "$target")/.$(basename "$target").$$.part
trap 'chmod -R u+rwX "$work"; rm -rf "$work" "$part"' EXIT
trap 'exit 130' INT TERM
started=$(date +%s)

need_room() { # folder, GB
    local free
    free=$(($(df -Pk "$1" | awk 'END {print $4}') / 1000000))
    [ "$free" -ge "$2" ] || die "$1 has $free GB free, the build needs $2: make room, or set $3 to another folder"
}

# All that the build may see of this machine: bound to /mnt, and gone with $work.
prepare() {
    local mnt=$work/mnt
    mkdir -p "$mnt/source" "$mnt/containers"
    cp "$here"/*.{def,sh,py,txt} "$mnt/containers"
    # -h: a file that is a link is copied as what it stands for
    tar -C "$(dirname "$package")" --exclude=__pycache__ -chf - petgan | tar -C "$mnt/source" -xf -
    [ ! -d "$package/../grids" ] || cp -r "$package/../grids" "$mnt/source/grids"
    { [ -e "$package/../.git" ] && git -C "$package" describe --always --dirty --abbrev=12 --exclude='*' ||
        echo unknown; } >"$mnt/commit" 2>/dev/null
    [ -z "$weights" ] || cp "$weights" "$mnt/weights.h5"

    export -p | grep -iE '^declare -x (http|https|all|no)_proxy=' >"$mnt/proxy.sh" || true
    local bundle
    for bundle in "${SSL_CERT_FILE:-}" "${REQUESTS_CA_BUNDLE:-}" \
        /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
        [ ! -f "$bundle" ] || { cp "$bundle" "$mnt/ca.crt" && break; }
    done
    pip_settings >"$mnt/pip.conf"
    apt_settings "$mnt"
}

# pip's settings of this machine, less those that name its own files.
pip_settings() {
    echo "[global]"
    { "$python" -m pip config list 2>/dev/null || true; } | sed -n \
        -e "s/^[^=]*\.\(index-url\|extra-index-url\|find-links\|trusted-host\|proxy\|timeout\|retries\)='\(.*\)'\$/\1 \2/p" |
        while read -r key values; do
            local kept='' list
            read -ra list <<<"${values//'\n'/ }"
            for value in "${list[@]}"; do
                [[ $value = /* || $value = file:* ]] || kept+=" $value"
            done
            [ -z "$kept" ] || echo "$key =$kept"
        done | awk '!seen[$1]++' # the environment's come first, and win
}

# The Debian mirror of this machine, with apt's proxies. Elsewhere than on Debian: the base image's own.
apt_settings() {
    local mnt=$1 mirror security
    : >"$mnt/apt.conf"
    [ ! -f "$mnt/ca.crt" ] || echo 'Acquire::https::CAInfo "/mnt/ca.crt";' >>"$mnt/apt.conf"
    command -v apt-get >/dev/null || return 0
    apt-config dump Acquire | grep -E '::(Proxy|Check-Date|Check-Valid-Until) ' >>"$mnt/apt.conf" || true
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | head -1)
    security=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian-Security' | head -1)
    [ -n "$mirror" ] || return 0
    {
        echo "deb $mirror bookworm main"
        echo "deb $mirror bookworm-updates main"
        [ -z "$security" ] || echo "deb $security bookworm-security main"
    } >"$mnt/sources.list"
    printf 'Dir::Etc::sourcelist "/mnt/sources.list";\nDir::Etc::sourceparts "/dev/null";\n' >>"$mnt/apt.conf"
}

# Choose the base: sets $base to the build arguments.
choose_base() {
    local from
    from=$(sed -n 's/^ *base=//p' "$here/petgan-$kind.def")
    if timeout 120 apptainer --silent pull "$work/base.sif" "docker://$from" >/dev/null 2>&1; then
        echo "base: $from from a container registry"
        base=()
        return
    fi
    command -v mmdebstrap >/dev/null || die "no container registry can be reached and mmdebstrap is missing: \
apt-get install mmdebstrap, or build where a registry can be reached and copy the image"
    echo "base: Debian from its mirror (no container registry can be reached)"
    # As a tar file, unpacked as whoever builds: the owners are then right with and without root, and /dev is empty.
    local sources=()
    [ ! -f "$work/mnt/sources.list" ] || sources=("$work/mnt/sources.list")
    mmdebstrap --quiet --variant=minbase --skip=output/dev bookworm "$work/base.tar" "${sources[@]}" ||
        die "mmdebstrap failed; is the Debian mirror reachable?"
    mkdir "$work/base"
    tar -C "$work/base" --no-same-owner --exclude='./dev/*' -xf "$work/base.tar"
    rm -f "$work/base.tar" "$work/base/etc/resolv.conf" "$work/base/etc/hostname"
    base=(--build-arg bootstrap=localimage --build-arg base=base)
}

need_room "$images" "$([ "$kind" = cpu ] && echo 4 || echo 10)" PETGAN_IMAGES
need_room "${APPTAINER_TMPDIR:-${TMPDIR:-/tmp}}" "$([ "$kind" = cpu ] && echo 5 || echo 16)" APPTAINER_TMPDIR
echo "building $target"
prepare
choose_base
# zstd: against gzip it starts faster, compresses 10 times faster and is smaller (docs/containers.md).
(cd "$work" && apptainer build --fakeroot --bind "$work/mnt:/mnt:ro" "${base[@]}" \
    --mksquashfs-args "-comp zstd -Xcompression-level 9" image.sif "mnt/containers/petgan-$kind.def") ||
    die "apptainer build failed; its last lines say where"
mv "$work/image.sif" "$part"
mv "$part" "$target"
echo "built in $(($(date +%s) - started)) s, $(($(stat -c %s "$target") / 1000000)) MB,\
 sha256 $(sha256sum <"$target" | cut -c 1-64)"
echo "$target"
