# Where things are, for the other scripts. Sourced, never run.
# shellcheck shell=bash disable=SC2034

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
: "${KILN_CACHE:=$ROOT/.cache}"
: "${KILN_BASES:=$KILN_CACHE/bases}"
REGISTRY_DIR=$KILN_CACHE/registry

say() { printf '== %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 3; }

# Installs the Debian packages named, when one of them is missing.
packages() {
  local missing=() name
  for name in "$@"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) == installed ]] || missing+=("$name")
  done
  ((${#missing[@]})) || return 0
  ((EUID == 0)) || die "these Debian packages are missing: ${missing[*]}"
  say "installing ${missing[*]}"
  # Runlevel 1 keeps packaged services (the registry's) from starting on their own.
  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
  apt-get install -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 && return 0
  apt-get update -qq
  apt-get install -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# The kiln to use: KILN, or the newer of the two builds.
kiln_binary() {
  local release=$ROOT/target/release/kiln debug=$ROOT/target/debug/kiln
  if [[ -z ${KILN:-} ]]; then
    KILN=$release
    [[ $debug -nt $release ]] && KILN=$debug
  fi
  [[ -x $KILN ]] || die "there is no kiln yet: run \`cargo build\`, or set KILN"
}

# Has a command run when the script ends, last one first.
at_exit() {
  AT_EXIT=("$1" "${AT_EXIT[@]}")
  trap run_at_exit EXIT
}
AT_EXIT=()
run_at_exit() {
  local command
  for command in "${AT_EXIT[@]}"; do eval "$command"; done
}

# Starts the registry, and stops it when the script ends if it was not running before.
with_registry() {
  "$ROOT/scripts/registry.sh" status >/dev/null || at_exit '"$ROOT/scripts/registry.sh" stop'
  REGISTRY=$("$ROOT/scripts/registry.sh" start)
}
