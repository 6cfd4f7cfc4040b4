#!/usr/bin/env bash
# Caches that kiln writes are read by BuildKit, and the other way round; with the builders of `scripts/peers.sh`, which must run.
#
#   scripts/exchange.sh    KILN names the binary
#
# Every step of a Dockerfile of two stages must be found, from a registry and a directory. dockerd has no network of its own
# there, so that all build with the host's, which is part of a step's name.
set -euo pipefail
source "$(dirname "$0")/env.sh"

kiln_binary
KILN=$(readlink -f "$KILN")
"$ROOT/scripts/peers.sh" status >/dev/null || die "the other builders do not run: run \`scripts/peers.sh start\`"
with_registry
"$ROOT/scripts/bases.sh" busybox
SCRATCH=$(mktemp -d -t kiln-exchange-XXXXXX)
at_exit 'rm -rf "$SCRATCH"'
mkdir -p "$SCRATCH/context/d"
cd "$SCRATCH/context"
echo a >a && echo x >d/x
cat >Dockerfile <<DOCKERFILE
FROM $REGISTRY/busybox AS made
ARG V=1
ENV E=\$V
WORKDIR /w
COPY a /a
RUN echo $RANDOM >/r
RUN --mount=type=cache,target=/c echo c >/c/x && cp /c/x /cx
FROM $REGISTRY/busybox
COPY --from=made /r /r2
COPY d /d
RUN cat /r2 >/r3
DOCKERFILE

FAILED=0
# Steps that were not found, in what a build printed. A base that is fetched is none.
judge() {
  local run
  run=$(python3 - "$2" <<'PYTHON'
import re, sys
text = open(sys.argv[1]).read()
steps = {m[1]: m[2] for m in re.finditer(r"^#(\d+) \[(?!internal|.*\] FROM )([^\n]*)", text, re.M)}
found = set(re.findall(r"^#(\d+) CACHED", text, re.M))
print(*[steps[n] for n in steps if n not in found], sep="\n", end="")
print("" if len(steps) > 5 else f"only {len(steps)} steps")
PYTHON
)
  if [[ -z $run ]]; then printf 'ok      %s\n' "$1"; else printf 'FAILED  %s: %s\n' "$1" "$run" && FAILED=1; fi
}
buildx() {
  "$ROOT/scripts/peers.sh" run docker buildx build --builder "$BUILDER" --allow network.host --network host --progress plain "$@" . \
    >"$SCRATCH/log" 2>&1 || { cat "$SCRATCH/log"; exit 1; }
}
forget() { "$ROOT/scripts/peers.sh" run docker buildx prune --builder "$BUILDER" -af >/dev/null; }
kiln() {
  rm -rf "$SCRATCH/state"
  "$KILN" --state "$SCRATCH/state" build --network host --allow network.host --progress plain "$@" . >"$SCRATCH/log" 2>&1 ||
    { cat "$SCRATCH/log"; exit 1; }
}

for BUILDER in source default; do
  name=$REGISTRY/exchange
  buildx --cache-to "type=registry,ref=$name:$BUILDER,mode=max"
  kiln --cache-from "$name:$BUILDER"
  judge "kiln reads what $BUILDER wrote to a registry" "$SCRATCH/log"
  kiln --cache-to "type=registry,ref=$name:kiln,mode=max" --cache-to "type=local,dest=$SCRATCH/kiln,mode=max"
  for from in "$name:kiln" "type=local,src=$SCRATCH/kiln"; do
    forget
    buildx --cache-from "$from"
    judge "$BUILDER reads what kiln wrote (${from%%,*})" "$SCRATCH/log"
  done
done
buildx_local=$SCRATCH/buildkit
BUILDER=source
forget
buildx --cache-to "type=local,dest=$buildx_local,mode=max"
kiln --cache-from "type=local,src=$buildx_local"
judge "kiln reads what source wrote to a directory" "$SCRATCH/log"
exit $FAILED
