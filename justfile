# `just` lists the recipes; each is one command that can also be typed.

default:
    @just --list

# Build kiln, make base images, build examples/hello and run it.
try:
    scripts/try.sh

# All checks, as continuous integration runs them.
test:
    scripts/test.sh

# The quick ones: format, lints, tests that need no base images.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo nextest run --workspace --profile quick

# Tests that need root, overlayfs and namespaces.
test-privileged:
    cargo nextest run --workspace -E 'binary(privileged)'

# The same Dockerfiles by kiln, and by BuildKit as it is recorded.
compare *CASES:
    cargo build --bin kiln
    scripts/registry.sh start
    scripts/bases.sh busybox debian
    scripts/compare.py {{CASES}}

# Build and run the examples.
examples *NAMES:
    cargo build --bin kiln
    scripts/examples.sh {{NAMES}}

# Measure against the other builders, and write docs/performance.md, on a machine that does nothing else.
bench *ARGS:
    scripts/bench.sh {{ARGS}}

# Measure parts: language, pattern, tree, layer, lookup, cached, start; all of them without a name.
micro NAME="*":
    cargo bench --workspace --bench '{{NAME}}'

# Count the instructions of a build that finds everything in the cache: see bench/README.md.
instructions *ARGS:
    cargo build --bin kiln
    scripts/registry.sh start
    scripts/bases.sh busybox
    scripts/instructions.py {{ARGS}}

# Accept changed snapshots after looking at them.
review:
    cargo insta review

# Fuzz one target for some minutes: see fuzz/README.md.
fuzz TARGET SECONDS="300":
    RUSTC_BOOTSTRAP=1 cargo fuzz run -s none {{TARGET}} -- -dict=fuzz/dockerfile.dict -max_total_time={{SECONDS}} -timeout=10 -rss_limit_mb=2048
