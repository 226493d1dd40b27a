#!/usr/bin/env bash
# Apptainer on Debian 12, which has no package of it: Debian unstable's, on a C library of its own.
#
#   apptainer.sh install    install (nothing to do where an apptainer is already on PATH)
#   apptainer.sh remove     take it away again
#
# Everything lies under /opt/petgan-apptainer, with one link in /usr/local/bin. The machine's own C library and
# apt sources stay as they are; a few helper programs come from the machine's own Debian, and root gets a line in
# /etc/subuid and /etc/subgid where it has none (--fakeroot needs it).
set -euo pipefail

home=/opt/petgan-apptainer
link=/usr/local/bin/apptainer
helpers=(squashfs-tools squashfuse fuse-overlayfs uidmap mmdebstrap patchelf libseccomp2 libsqlite3-0 ca-certificates)

die() {
    echo "apptainer.sh: $*" >&2
    exit 1
}

install() {
    [ "$(id -u)" = 0 ] || die "must be run as root (this is uid $(id -u)); on a cluster ask for the site's Apptainer."
    command -v apt-get >/dev/null || die "needs Debian's apt-get; elsewhere install Apptainer 1.2 or newer yourself."
    install_helpers
    allow_root_fakeroot
    if works apptainer; then
        echo "apptainer $(apptainer version) is there: $(command -v apptainer)"
        return
    fi
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    download
    unpack
    works "$link" || die "the unpacked Apptainer does not start: '$link version' says: $("$link" version 2>&1 | tail -1)"
    echo "apptainer $("$link" version) is installed: $link"
}

works() { "$1" version >/dev/null 2>&1; }

install_helpers() {
    local missing=() package
    for package in "${helpers[@]}"; do
        dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q ^ii || missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] && return
    echo "apptainer.sh: installing ${missing[*]}"
    apt-get -qq update || true # a list that is a day old will do
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null ||
        die "apt-get could not install ${missing[*]}: look at /etc/apt/sources.list.d and try again."
}

allow_root_fakeroot() {
    local file
    for file in /etc/subuid /etc/subgid; do
        grep -qs '^root:' "$file" || echo 'root:100000:65536' >>"$file"
    done
}

# Fetch the two packages from unstable on the machine's own Debian mirror, with lists and a cache of their own.
download() {
    local mirror
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | head -1)
    [ -n "$mirror" ] || die "found no Debian mirror in this machine's apt sources; add one and run 'apt-get update'."
    mkdir -p "$scratch/lists/partial" "$scratch/cache/archives/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror unstable main" >"$scratch/sources.list"
    local apt=(apt-get -qq -o Dir::Etc::sourcelist="$scratch/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o Dir::State::lists="$scratch/lists" -o Dir::Cache="$scratch/cache" -o APT::Sandbox::User=root)
    echo "apptainer.sh: downloading apptainer and libc6 of Debian unstable (31 MB)"
    (cd "$scratch" && "${apt[@]}" update && "${apt[@]}" download apptainer libc6) ||
        die "could not download apptainer and libc6 from Debian unstable; is the mirror reachable?"
}

unpack() {
    local package program lib
    rm -rf "$home" "$home.new"
    mkdir -p "$home.new"
    for package in "$scratch"/*.deb; do dpkg -x "$package" "$home.new"; done
    lib=$(dirname "$(find "$home.new/usr/lib" -name libc.so.6)")
    for program in usr/bin/apptainer "${lib#"$home.new/"}/apptainer/bin/starter"; do
        patchelf --set-interpreter "$home/${lib#"$home.new/"}/$(basename "$lib"/ld-linux*)" \
            --set-rpath "$home/${lib#"$home.new/"}" "$home.new/$program"
    done
    # Apptainer looks for its configuration beside its own place: its command below usr/, its starter below usr/lib/.
    mv "$home.new/etc" "$home.new/usr/etc"
    mkdir -p "$home.new/usr/var/lib/apptainer/mnt/session"
    ln -s ../etc "$home.new/usr/lib/etc"
    ln -s ../var "$home.new/usr/lib/var"
    # Root of a virtual machine may lack a capability or two; asking for all of them would then fail.
    sed -i 's/^root default capabilities.*/root default capabilities = no/' "$home.new/usr/etc/apptainer/apptainer.conf"
    mv "$home.new" "$home"
    mkdir -p "$(dirname "$link")"
    ln -sfn "$home/usr/bin/apptainer" "$link"
}

remove() {
    [ "$(id -u)" = 0 ] || die "must be run as root (this is uid $(id -u))."
    [ "$(readlink "$link" || true)" = "$home/usr/bin/apptainer" ] && rm "$link"
    rm -rf "$home"
}

case "${1:-}" in
    install | remove) "$1" ;;
    *) die "'${1:-}' is no command; write: apptainer.sh install, or apptainer.sh remove" ;;
esac
