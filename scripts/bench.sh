#!/usr/bin/env bash
# From a fresh clone to docs/performance.md: builds kiln, makes the bases, sets up the other builders and measures all.
#
#   bench.sh [OPTION]...       options of bench/run.py: --only B1,B2, --builders kiln, --runs 5
#
# What was measured is written to docs/performance.* and README's table, in the place of what was there (`git checkout` brings it back).
# Needs root, Debian's apt, a Rust toolchain and 40 GiB of disk. Nothing outside the clone is changed but missing Debian packages.
#   KILN=FILE                  the kiln to measure, instead of one that is built here
#   KILN_CACHE=DIR             where bases, builders and the work directory are, instead of .cache
#   KILN_BUILDKIT_SOURCE=DIR   a clone of moby/buildkit, from which buildctl is built once; without it there is no buildctl
set -euo pipefail
source "$(dirname "$0")/env.sh"

case ${1:-} in -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
((EUID == 0)) || die "measuring needs root: sudo $0"

packages python3
"$ROOT/bench/run.py" --check "$@"
packages gcc libc6-dev curl skopeo docker-registry e2fsprogs util-linux
python3 -m pip --version >/dev/null 2>&1 || packages python3-pip

if [[ -z ${KILN:-} ]]; then
  command -v cargo >/dev/null || die "there is no cargo: install Rust, or name a kiln with KILN=FILE"
  say "building kiln (some minutes the first time)"
  cargo build --release --locked --manifest-path "$ROOT/Cargo.toml" --bin kiln
  named=()
else
  named=(--kiln "$KILN")
fi

with_registry
say "base images"
"$ROOT/scripts/bases.sh" busybox python

say "the other builders"
"$ROOT/scripts/peers.sh" setup || say "they cannot be set up: what is missing of them is skipped"
if [[ -n ${KILN_BUILDKIT_SOURCE:-} && ! -x $KILN_CACHE/peers/tree/usr/local/bin/buildctl ]]; then
  say "building buildctl and buildkitd from $KILN_BUILDKIT_SOURCE"
  "$ROOT/scripts/peers.sh" source "$KILN_BUILDKIT_SOURCE" || say "BuildKit cannot be built: buildctl is skipped"
fi

# Not in the foreground: a signal is passed on, and the registry is stopped when all has been cleaned up.
"$ROOT/bench/run.py" --publish --registry "$REGISTRY" "${named[@]}" "$@" &
pid=$!
trap 'again=1; kill -TERM "$pid" 2>/dev/null || true' INT TERM HUP
again=1
while [[ -n $again ]]; do
  again=
  code=0
  wait "$pid" || code=$?
done
exit "$code"
