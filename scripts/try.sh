#!/usr/bin/env bash
# From a fresh clone to a running image: builds kiln, makes two base images, builds examples/hello and runs it.
#
# Needs root, Debian's apt and a Rust toolchain; nothing outside the clone is changed but missing Debian packages.
set -euo pipefail
source "$(dirname "$0")/env.sh"

((EUID == 0)) || die "making base images needs root: sudo $0"
export KILN_STATE=${KILN_STATE:-$KILN_CACHE/state}

packages gcc libc6-dev python3 curl
if [[ -z ${KILN:-} ]]; then
  say "building kiln (a few minutes the first time)"
  cargo build --release --locked --manifest-path "$ROOT/Cargo.toml" --bin kiln
  KILN=$ROOT/target/release/kiln
fi

with_registry
say "base images"
"$ROOT/scripts/bases.sh" busybox debian

say "kiln build -t hello examples/hello"
"$KILN" build -t hello --build-arg REGISTRY="$REGISTRY" --build-arg NAME="$(id -un)" "$ROOT/examples/hello"

say "kiln run --rm hello"
"$KILN" run --rm hello

cat >&2 <<END

That image is in the store at $KILN_STATE. To go on:

  export KILN_STATE=$KILN_STATE PATH=${KILN%/*}:\$PATH
  kiln images
  kiln history hello
  kiln build --help
END
