#!/usr/bin/env bash
# Kills a build with SIGKILL at random moments, N times; after each, nothing may be left, and the next build must be right.
#
#   scripts/crash.sh [N]    default 200; KILN names the binary
#
# Six stages, 5,000 files, three steps with a cache mount, an OCI archive. Prints figures; fails at the first wrong image.
set -euo pipefail
source "$(dirname "$0")/env.sh"
cd "$ROOT"

N=${1:-200}
kiln_binary
KILN=$(readlink -f "$KILN")
SCRATCH=$(mktemp -d -t kiln-crash-XXXXXX)
at_exit 'rm -rf "$SCRATCH"'
export DOCKER_CONFIG=$SCRATCH/docker
STATE=$SCRATCH/state CONTEXT=$SCRATCH/context
kiln() { "$KILN" --state "$STATE" "$@"; }

mkdir -p "$CONTEXT/src" "$SCRATCH/base"
cp "$(command -v busybox)" "$SCRATCH/base/busybox"
printf 'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox","--install","-s","/bin"]\n' >"$SCRATCH/base/Dockerfile"
kiln build -q -t busybox "$SCRATCH/base" >/dev/null
for ((d = 0; d < 50; d++)); do
  mkdir "$CONTEXT/src/$d"
  for ((f = 0; f < 100; f++)); do printf 'file %d of %d\n' "$f" "$d" >"$CONTEXT/src/$d/$f"; done
done
cat >"$CONTEXT/Dockerfile" <<'DOCKERFILE'
FROM busybox AS files
COPY src /src
FROM files AS sum
RUN --mount=type=cache,target=/cache sleep 0.5 && echo x >>/cache/log && find /src -type f | sort | xargs cat | sha256sum >/sum
FROM busybox AS tool
RUN --mount=type=cache,target=/cache sleep 0.7 && echo tool >/tool
FROM busybox AS list
COPY --from=files /src /src
RUN --mount=type=cache,target=/cache sleep 0.3 && ls -R /src >/list
FROM busybox AS all
COPY --from=sum /sum /sum
COPY --from=tool /tool /tool
COPY --from=list /list /list
FROM all
COPY --from=files /src/1 /one
DOCKERFILE

build() { kiln build -q -t app -o "type=oci,dest=$SCRATCH/image.tar" "$CONTEXT"; }
# What counts of an image: its files, with modes and owners. When steps ran differs from build to build.
files() {
  kiln build -q -o "type=tar,dest=$SCRATCH/files.tar" "$CONTEXT" >/dev/null
  tar -tvf "$SCRATCH/files.tar" | awk '{print $1, $2, $3, $6, $7, $8}' | sort | sha256sum
  tar -xOf "$SCRATCH/files.tar" sum tool list one | sha256sum
}
now() { date +%s%3N; }
# Processes in namespaces of their own or of this state directory; mounts; cgroups; named networks.
left() {
  grep -c -- "$SCRATCH" /proc/self/mountinfo || true
  { grep -l -- "$SCRATCH" /proc/[0-9]*/mountinfo 2>/dev/null || true; } | wc -l
  for link in /proc/[0-9]*/exe; do readlink "$link" 2>/dev/null; done | grep -c -x -F -- "$KILN" || true
  find /sys/fs/cgroup -type d -name '*kiln*' 2>/dev/null | wc -l
  { ls /run/netns 2>/dev/null || true; } | wc -l
}

began=$(now)
kiln prune -af >/dev/null
build >/dev/null
whole=$(($(now) - began))
golden=$(files)
before=$(left)
say "one build takes $whole ms; $N kills"

last=$whole landed=0 wrong=0 leaks=0 half=0 unclean=0 reruns=()
for ((i = 1; i <= N; i++)); do
  kiln prune -af >/dev/null
  rm -f "$SCRATCH/image.tar"
  "$KILN" --state "$STATE" build -q -t app -o "type=oci,dest=$SCRATCH/image.tar" "$CONTEXT" >/dev/null 2>&1 &
  child=$!
  # As long as the last one took: machines are slower and faster by the minute.
  moment=$((RANDOM * last / 32768))
  sleep "$(printf '%d.%03d' $((moment / 1000)) $((moment % 1000)))"
  kill -9 "$child" 2>/dev/null && landed=$((landed + 1))
  wait "$child" 2>/dev/null || true
  for ((try = 0; try < 50; try++)); do
    [[ $(left) == "$before" ]] && break
    sleep 0.1
  done
  [[ $(left) == "$before" ]] || { leaks=$((leaks + 1)); echo "kill $i left: $(left | tr '\n' ' ') (before: $(tr '\n' ' ' <<<"$before"))"; }
  if [[ -e $SCRATCH/image.tar ]] && ! tar -tf "$SCRATCH/image.tar" oci-layout >/dev/null 2>&1; then half=$((half + 1)); fi
  began=$(now)
  build >/dev/null
  last=$(($(now) - began))
  reruns+=("$last")
  [[ $(files) == "$golden" ]] || { wrong=$((wrong + 1)); echo "kill $i: another image"; }
  kiln fsck --deep >"$SCRATCH/fsck" || { unclean=$((unclean + 1)); cat "$SCRATCH/fsck"; }
  ((i % 20)) || say "$i kills: $landed landed, $wrong wrong, $leaks leaks, $half half files, $unclean unclean"
done

parts=$(find "$SCRATCH" -maxdepth 1 -name 'image.tar.part-*' | wc -l)
kiln rmi busybox >/dev/null
kiln prune -af >/dev/null
size=$(du -sb "$STATE" | cut -f1)
median=$(printf '%s\n' "${reruns[@]}" | sort -n | sed -n "$(((N + 1) / 2))p")
say "kills $N, landed $landed, wrong images $wrong, leaks $leaks, half files $half, unclean stores $unclean"
say "median build after a kill $median ms (from nothing $whole ms); pruned state $size bytes; unfinished exports beside the file $parts"
((wrong + leaks + half + unclean == 0 && size <= 1 << 20 && landed * 2 >= N))
