#!/usr/bin/env bash
# Builds the examples, runs them and checks what they print: examples.sh [NAME]...     default: all
#
# `guide-errors` stands for the three mistakes of examples/guide-errors. A new store each time, so nothing is cached.
set -euo pipefail
source "$(dirname "$0")/env.sh"

ALL=(hello build-arg secret non-root apt-packages python-flask python-multistage go-multistage node-cached-deps guide-errors)
WORK=$(mktemp -d -t kiln-examples-XXXXXX)
at_exit 'rm -rf "$WORK"'
FAILED=0

bases_of() {
  case $1 in
    hello) echo busybox debian ;;
    build-arg | guide-errors) echo busybox ;;
    secret | non-root | apt-packages) echo debian ;;
    python-*) echo python ;;
    go-*) echo golang ;;
    node-*) echo node ;;
    *) echo "error: no example \`$1\`" >&2; exit 2 ;;
  esac
}

# What to run in the image (nothing: its own command), then what it must print.
check_of() {
  case $1 in
    hello) COMMAND=() WANTED='hello, examples: built on' ;;
    build-arg) COMMAND=() WANTED='Building version: 1.0.1' ;;
    secret) COMMAND=() WANTED="$(printf 'my-app 1.0\n' | openssl dgst -sha256 -hmac 'correct horse battery staple' -r | cut -d' ' -f1)" ;;
    non-root) COMMAND=() WANTED='running as appuser in /app' ;;
    apt-packages) COMMAND=() WANTED='file-5.' ;;
    python-flask) COMMAND=(python -c 'import app; print(app.app.test_client().get("/").text)') WANTED='hello from flask' ;;
    python-multistage) COMMAND=(python -c 'import app; print(app.hello())') WANTED='hello from flask' ;;
    go-multistage) COMMAND=() WANTED='running as uid 65534' ;;
    node-cached-deps) COMMAND=(node server.js --once) WANTED='one day is 86400000 ms' ;;
  esac
}

build() {
  "$KILN" --state "$WORK/state" build --progress plain --build-arg REGISTRY="$REGISTRY" --secret id=mysecret,src="$WORK/mysecret" "$@"
}

report() {
  local verdict=$1 name=$2
  printf '%-7s %-36s %s s\n' "$verdict" "$name" "$(($(date +%s) - STARTED))"
  [[ $verdict == ok ]] && return
  tail -n 25 "$WORK/log" | sed 's/^/    /'
  FAILED=1
}

example() {
  local name=$1 arguments=()
  STARTED=$(date +%s)
  case $name in hello) arguments=(--build-arg NAME=examples) ;; build-arg) arguments=(--build-arg BUILD_VERSION=1.0.1) ;; esac
  check_of "$name"
  if build -t "$name" "${arguments[@]}" "$ROOT/examples/$name" >"$WORK/log" 2>&1 &&
    "$KILN" --state "$WORK/state" run --rm "$name" "${COMMAND[@]}" >>"$WORK/log" 2>&1 && grep -qF -- "$WANTED" "$WORK/log"; then
    report ok "$name"
  else
    echo "(wanted: $WANTED)" >>"$WORK/log"
    report FAILED "$name"
  fi
}

# One of the guides' mistakes: `expect` holds the exit code and, a line each, what must be said.
mistake() {
  local folder=$1 code=0 line verdict=ok
  STARTED=$(date +%s)
  build -t mistake "$folder" >"$WORK/log" 2>&1 || code=$?
  while IFS= read -r line; do
    case $line in
      'exit any') continue ;;
      'exit '*) [[ $code == "${line#exit }" ]] && continue ;;
      *) grep -qF -- "$line" "$WORK/log" && continue ;;
    esac
    verdict=FAILED
    echo "(not so: $line)" >>"$WORK/log"
  done <"$folder/expect"
  report $verdict "${folder#"$ROOT/examples/"}"
}

main() {
  (($#)) || set -- "${ALL[@]}"
  local name bases=()
  kiln_binary
  for name in "$@"; do read -ra needed <<<"$(bases_of "$name")"; bases+=("${needed[@]}"); done
  packages openssl
  with_registry
  mapfile -t bases < <(printf '%s\n' "${bases[@]}" | sort -u)
  "$ROOT/scripts/bases.sh" "${bases[@]}"
  echo 'correct horse battery staple' >"$WORK/mysecret"
  for name in "$@"; do
    if [[ $name == guide-errors ]]; then
      for folder in "$ROOT"/examples/guide-errors/*/; do mistake "${folder%/}"; done
    else
      example "$name"
    fi
  done
  return $FAILED
}

main "$@"
