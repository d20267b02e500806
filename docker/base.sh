#!/usr/bin/env bash
# Makes the two base images of docker/Dockerfile where no registry can be reached.
#
#   ./docker/base.sh          debian:bookworm-slim and rust:1-bookworm, under their usual tags
#
# An image that is present stays; one that can be pulled is pulled; else it is made with debootstrap from this machine's
# own apt sources, certificates and Rust toolchain, which takes about a minute each. Needs root. Safe to run again.
# An image on such a base trusts the certificate authorities of this machine and asks its apt sources: keep it at home.
set -euo pipefail

debian=debian:bookworm-slim rust=rust:1-bookworm suite=bookworm
die() { echo "base: $*" >&2; exit 1; }
present() { docker image inspect "$1" >/dev/null 2>&1 || timeout 60 docker pull --quiet "$1" >/dev/null 2>&1; }

docker info >/dev/null 2>&1 || die "no Docker engine answers: start it, or join the group docker"
present "$debian" && present "$rust" && { echo "base: $debian and $rust are there"; exit 0; }

[ "$(id -u)" = 0 ] || die "debootstrap needs root: sudo $0"
command -v debootstrap >/dev/null || { apt-get update -qq && apt-get install -qq -y debootstrap >/dev/null; } ||
    die "debootstrap is missing and apt-get could not install it"
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

# sources: this machine's apt sources for Debian, one line each; Debian's own address where it has none.
sources() {
    local found
    found=$(apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' |
        grep " $suite" | sort -u) || found="deb http://deb.debian.org/debian $suite main"
    echo "$found"
}

# certificates ROOT: trusts in ROOT the authorities that were added to this machine, so that HTTPS package indexes
# answer there as they do here.
certificates() {
    mkdir -p "$1/usr/local/share/ca-certificates"
    cp -L /usr/local/share/ca-certificates/*.crt "$1/usr/local/share/ca-certificates/" 2>/dev/null || true
    chroot "$1" update-ca-certificates >/dev/null 2>&1
}

if ! present "$debian"; then
    echo "base: making $debian"
    sources >"$root.list"
    mirror=$(awk -v suite="$suite" '$3 == suite { print $2; exit }' "$root.list")
    debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" "$mirror" >"$root.log" 2>&1 ||
        { tail -5 "$root.log" >&2; die "debootstrap from $mirror failed"; }
    mv "$root.list" "$root/etc/apt/sources.list"
    certificates "$root"
    rm -rf "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root.log" \
        "$root"/usr/share/{doc,man,locale}/*
    tar -C "$root" -c . | docker import --change 'CMD ["bash"]' - "$debian" >/dev/null
fi

if ! present "$rust"; then
    toolchain=$(rustc --print sysroot) || die "this machine has no Rust toolchain to copy: install rustup"
    echo "base: making $rust from $toolchain"
    mkdir -p "$root/context"
    tar -C "$toolchain" -cf "$root/context/rust.tar" bin lib
    # Only the builder, of which nothing but the program goes into an image, keeps this machine's settings of cargo and pip.
    cp -L "${CARGO_HOME:-$HOME/.cargo}/config.toml" "$root/context/config.toml" 2>/dev/null || : >"$root/context/config.toml"
    cp -L /etc/pip.conf "$root/context/pip.conf" 2>/dev/null || : >"$root/context/pip.conf"
    cat >"$root/context/Dockerfile" <<DOCKERFILE
FROM $debian
RUN apt-get update && apt-get install -y --no-install-recommends build-essential && rm -rf /var/lib/apt/lists/*
ADD rust.tar /usr/local/
COPY config.toml /usr/local/cargo/config.toml
COPY pip.conf /etc/pip.conf
ENV CARGO_HOME=/usr/local/cargo PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
DOCKERFILE
    docker build --quiet --tag "$rust" "$root/context" >/dev/null
fi
echo "base: $debian and $rust are ready"
