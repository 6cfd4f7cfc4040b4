#!/usr/bin/env bash
# All checks: format, lints, every test (privileged ones too, as root), the examples, and that nothing is left behind.
#
# Installs the Debian packages the tests need and makes their base images. One profile and one set of features, so that
# nothing is built twice: end-to-end tests run the kiln of the same build.
set -euo pipefail
source "$(dirname "$0")/env.sh"
cd "$ROOT"

packages gcc g++ libc6-dev busybox-static python3 curl zstd xz-utils bzip2 skopeo umoci buildah runc docker-registry mmdebstrap openssl git openssh-client iptables nftables uidmap passt slirp4netns podman bubblewrap

with_registry
SCRATCH=$(mktemp -d -t kiln-test-XXXXXX)
at_exit 'rm -rf "$SCRATCH"'
say "base images"
scripts/bases.sh busybox debian python
export KILN_TEST_REGISTRY=$REGISTRY KILN_TEST_BASES=$KILN_BASES
say "object stores"
STORES=$(scripts/stores.sh)
while read -r store; do export "${store?}"; done <<<"$STORES"
if ((EUID == 0)) && [[ $(uname -m) == x86_64 ]]; then
  say "an emulator"
  at_exit 'scripts/emulator.sh stop'
  KILN_TEST_ARM64=$(scripts/emulator.sh start)
  export KILN_TEST_ARM64
fi
if ((EUID == 0)); then
  say "an ordinary user"
  # `useradd` sets ids aside for him.
  id kiln-test >/dev/null 2>&1 || { useradd --create-home kiln-test && at_exit 'userdel --remove kiln-test 2>/dev/null'; }
  grep -q ^kiln-test: /etc/subuid || usermod --add-subuids 400000-465535 --add-subgids 400000-465535 kiln-test
  export KILN_TEST_USER=kiln-test
  # What is made for him lies below.
  chmod 755 "$SCRATCH"
fi
# Where everything is there, a test that skips is a test that fails.
((EUID == 0)) && export KILN_TEST_REQUIRE=1

say "format"
cargo fmt --all --check
say "lints"
cargo clippy --workspace --all-targets --locked -- -D warnings

say "fuzz targets compile"
cargo check --manifest-path fuzz/Cargo.toml --target-dir target --locked --quiet

say "sums of the benchmarks"
python3 -m unittest discover -q -s bench

say "tests"
mkdir "$SCRATCH/tmp"
export TMPDIR=$SCRATCH/tmp
scripts/leaks.py snapshot "$SCRATCH/before"
if cargo nextest --version >/dev/null 2>&1; then
  cargo nextest run --workspace --locked ${CI:+--profile ci}
  cargo test --workspace --locked --doc --quiet
else
  cargo test --workspace --locked
fi

if ((EUID == 0)); then
  say "other tools"
  KILN=target/debug/kiln scripts/interop.sh
  say "examples"
  KILN=target/debug/kiln scripts/examples.sh hello build-arg secret non-root apt-packages python-flask python-multistage guide-errors
  say "instructions"
  scripts/instructions.py target/debug/kiln
fi

say "left behind"
scripts/leaks.py compare "$SCRATCH/before"
say "all good"
