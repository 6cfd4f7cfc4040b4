#!/usr/bin/env bash
# The builders we compare ourselves with, from Debian's newest packages, apart from this machine's own.
#
#   peers.sh setup                 a tree with docker, its BuildKit, buildx, buildah and podman (about 1 GiB, a minute or two)
#   peers.sh source DIR            builds buildkitd in it from DIR, BuildKit's source as a git directory or a work tree
#   peers.sh start                 starts dockerd, and buildkitd if `source` has built one (buildx calls it `source`)
#   peers.sh run COMMAND [ARG]...  runs a command beside them; /tmp and this repository have the same paths there
#   peers.sh versions | status | stop
#   peers.sh with COMMAND [ARG]... runs a command in the tree without the daemons, in name spaces that end with it; the
#                                  directory KILN_PEERS_SHARED has the same path there, too
#   peers.sh sweep                 removes the control groups and the mount point that it has left
#
# The daemons have mount, process, ipc and host name spaces of their own, and live in the cache directory; from outside they
# are one process and its children, and end with it. They share the network, to reach the registry on loopback, and leave
# its rules alone. Packages come from wherever this machine's apt takes them, in the suite KILN_PEERS_SUITE (sid).
set -euo pipefail
source "$(dirname "$0")/env.sh"

DIR=$KILN_CACHE/peers
TREE=$DIR/tree
UNFINISHED=$DIR/unfinished
PID_FILE=$DIR/pid
: "${KILN_PEERS_SUITE:=sid}"
# A mirror may be older than its promise; these trees are for comparing, not for serving.
OLD_IS_GOOD='Acquire::Check-Valid-Until "false"'
CGROUPS=kiln-peers

setup() {
  ((EUID == 0)) || die "a tree of Debian packages needs root"
  mkdir -p "$DIR"
  (flock 7; make_tree) 7>"$DIR/setup.lock"
}

# A tree whose making was interrupted is made anew.
make_tree() {
  if [[ ! -e $UNFINISHED ]] && [[ -x $TREE/usr/bin/dockerd || -x $TREE/usr/sbin/dockerd ]]; then
    complete
    return
  fi
  packages mmdebstrap
  : >"$UNFINISHED"
  compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null || apt-get update -qq >&2
  local mirror options=()
  mirror=$(apt-get indextargets 'Created-By: Packages' 'Origin: Debian' --format '$(REPO_URI)' | grep -v security | sort -u | head -1)
  mapfile -t options < <(apt-config dump | sed -nE 's/^(Acquire::[^ ]*Proxy[^ ]* .*)/--aptopt=\1/ip')
  rm -rf "$TREE"
  mmdebstrap --quiet --mode=root --variant=minbase --aptopt="$OLD_IS_GOOD" "${options[@]}" \
    --include=docker.io,docker-cli,docker-buildx,containerd,runc,buildah,podman,python3,netavark,ca-certificates,xz-utils,bzip2,zstd,git \
    "$KILN_PEERS_SUITE" "$TREE" "$mirror"
  rm "$UNFINISHED"
}

# A tree that was made before these were wanted gets them now.
complete() {
  [[ -x $TREE/usr/bin/podman && -x $TREE/usr/bin/python3 ]] && return
  say "adding podman and python3 to the tree"
  in_tree "apt-get -o Acquire::Check-Valid-Until=false update -qq; apt-get install -qq --no-install-recommends podman python3 >/dev/null 2>&1"
}

# Builds in the tree, with the tree's Go and the libraries that come with the source.
build_from_source() {
  local source=$1
  git -C "$source" rev-parse HEAD >/dev/null || die "\`$source\` is no git directory with BuildKit's source"
  setup
  rm -rf "$TREE/src/buildkit"
  mkdir -p "$TREE/src/buildkit"
  git -C "$source" archive HEAD | tar -x -C "$TREE/src/buildkit"
  local revision
  revision=$(git -C "$source" rev-parse --short=9 HEAD)
  in_tree "apt-get update -qq; apt-get install -qq --no-install-recommends golang-go >/dev/null
    cd /src/buildkit
    export CGO_ENABLED=0 GOFLAGS=-mod=vendor GOTOOLCHAIN=local GOPROXY=off
    mkdir -p /src/bin
    go build -o /src/bin/ -ldflags '-X github.com/moby/buildkit/version.Version=$revision' ./cmd/buildkitd ./cmd/buildctl
    mv /src/bin/* /usr/local/bin/"
}

in_tree() {
  TREE=$TREE SCRIPT="set -e; $1" unshare --mount --pid --fork --kill-child --propagation private bash -euc '
    mount -t proc proc "$TREE/proc"
    mount --bind /etc/resolv.conf "$TREE/etc/resolv.conf"
    exec chroot "$TREE" /usr/bin/env DEBIAN_FRONTEND=noninteractive HOME=/root PATH=/usr/bin:/bin:/usr/sbin:/sbin bash -c "$SCRIPT"'
}

running() {
  [[ -s $PID_FILE ]] && tr '\0' ' ' 2>/dev/null <"/proc/$(<"$PID_FILE")/cmdline" | grep -qF "$DIR/init"
}

# The first process of the daemons' own process space.
first() { pgrep -P "$(<"$PID_FILE")" | head -1; }

configure() {
  local registry limit
  registry=$("$ROOT/scripts/registry.sh" address || echo 127.0.0.1:5000)
  mkdir -p "$TREE/etc/docker" "$TREE/etc/buildkit" "$TREE/etc/containers" "$DIR/state"
  cat >"$TREE/etc/docker/daemon.json" <<JSON
{"data-root": "$DIR/state/docker", "features": {"containerd-snapshotter": true}, "bridge": "none", "iptables": false,
 "ip6tables": false, "ip-forward": false, "ip-masq": false, "cgroup-parent": "$CGROUPS", "insecure-registries": ["$registry"]}
JSON
  cat >"$TREE/etc/buildkit/buildkitd.toml" <<TOML
root = "$DIR/state/buildkit"
insecure-entitlements = ["network.host", "security.insecure"]
[worker.oci]
  networkMode = "host"
  defaultCgroupParent = "$CGROUPS"
[worker.containerd]
  enabled = false
[registry."$registry"]
  http = true
TOML
  # buildah asks for more than can be had where CAP_SYS_RESOURCE is missing.
  limit=$(ulimit -Hn)
  [[ $limit == unlimited ]] && limit=20000
  cat >"$TREE/etc/containers/containers.conf" <<TOML
[containers]
default_ulimits = ["nofile=$limit:$limit", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
TOML
  cat >"$TREE/etc/containers/storage.conf" <<TOML
[storage]
driver = "overlay"
runroot = "/run/containers/storage"
graphroot = "$DIR/state/containers"
TOML
  printf '[[registry]]\nlocation = "%s"\ninsecure = true\n' "$registry" >"$TREE/etc/containers/registries.conf"
  # Every process asks for the signature policy.
  echo '{"default": [{"type": "insecureAcceptAnything"}]}' >"$TREE/etc/containers/policy.json"
}

# Runs as the first process: makes the tree its root; then starts the daemons and ends them, or runs what it is given.
write_init() {
  # One that runs keeps the file that it reads.
  cat >"$DIR/init.new" <<'BASH'
set -euo pipefail
mount --bind "$TREE" "$TREE"
cd "$TREE"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs -o mode=755 run run
mount --bind /etc/resolv.conf etc/resolv.conf
mount --bind /tmp tmp
mkdir -p ".$ROOT" ".$DIR/state"
mount --bind "$ROOT" ".$ROOT"
mount --bind "$DIR/state" ".$DIR/state"
if [[ -n ${KILN_PEERS_SHARED:-} ]]; then
  mkdir -p ".$KILN_PEERS_SHARED"
  mount --bind "$KILN_PEERS_SHARED" ".$KILN_PEERS_SHARED"
fi
mkdir -p .outside
pivot_root . .outside
cd /
umount -l /.outside
inside=(env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TMPDIR=/tmp)
# Not `exec`: the first process has to bury what its children leave behind.
if (($#)); then "${inside[@]}" "$@"; exit; fi
: >"$DIR/state/inside"
exec "${inside[@]}" bash -uc '
  trap "kill \$(jobs -p); wait" TERM
  [[ ! -x /usr/local/bin/buildkitd ]] || buildkitd &
  dockerd &
  wait'
BASH
  mv "$DIR/init.new" "$DIR/init"
}

start() {
  ((EUID == 0)) || die "dockerd needs root"
  setup
  mkdir -p "$DIR"
  exec 9>"$DIR/lock"
  flock 9
  running && return
  configure
  write_init
  rm -f "$DIR/state/inside"
  export TREE ROOT DIR
  setsid unshare --mount --pid --ipc --uts --fork --kill-child --propagation private \
    bash "$DIR/init" >"$DIR/log" 2>&1 </dev/null 9>&- &
  echo $! >"$PID_FILE"
  for _ in {1..150}; do
    [[ -d /proc/$(<"$PID_FILE") ]] || { tail -5 "$DIR/log" >&2; die "the daemons ended, see $DIR/log"; }
    ready && break
    sleep 0.2
  done
  ready || die "the daemons do not answer, see $DIR/log"
}

with() {
  ((EUID == 0)) || die "builders in name spaces need root"
  setup >&2
  # Another may be at it.
  exec 9>"$DIR/lock"
  flock 9
  configure
  write_init
  exec 9>&-
  export TREE ROOT DIR
  exec unshare --mount --pid --ipc --uts --fork --kill-child --propagation private bash "$DIR/init" "$@"
}

# Before the tree is its root, the first process still sees the machine's own files.
ready() {
  [[ -e $DIR/state/inside ]] && inside docker version >/dev/null 2>&1 || return 1
  [[ -x $TREE/usr/local/bin/buildkitd ]] || return 0
  inside docker buildx inspect source >/dev/null 2>&1 ||
    inside docker buildx create --name source --driver remote unix:///run/buildkit/buildkitd.sock >/dev/null
  inside buildctl debug workers >/dev/null 2>&1
}

inside() {
  local pid
  pid=$(first)
  [[ -n $pid ]] || die "the daemons do not run: \`scripts/peers.sh start\`"
  # shellcheck disable=SC2016
  nsenter --target "$pid" --mount --pid --ipc --uts --root -- /usr/bin/env -i HOME=/root TMPDIR=/tmp TERM=dumb \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin bash -c 'cd "$0" 2>/dev/null; exec "$@"' "$PWD" "$@"
}

versions() {
  inside docker version --format '{{.Server.Version}}' | sed 's/^/docker /'
  inside docker buildx version | awk '{print "buildx", $2}'
  [[ ! -x $TREE/usr/local/bin/buildkitd ]] || inside buildkitd --version | awk '{print "buildkitd", $3}'
  inside buildah --version
}

stop() {
  running || return 0
  local pid init
  pid=$(<"$PID_FILE")
  init=$(first)
  [[ -z $init ]] || kill -TERM "$init"
  for _ in {1..100}; do
    [[ -d /proc/$pid ]] || break
    sleep 0.1
  done
  # Whatever still runs dies with the first process of its space.
  kill -KILL "$pid" 2>/dev/null || true
  rm -f "$PID_FILE"
  sweep
}

# What is in use stays.
sweep() {
  find /sys/fs/cgroup -depth -type d -path "*/$CGROUPS*" -exec rmdir {} + 2>/dev/null || true
  [[ -z ${KILN_PEERS_SHARED:-} ]] || (cd "$TREE" && rmdir -p ".$KILN_PEERS_SHARED" 2>/dev/null) || true
}

usage() { sed -n '2,15s/^# \{0,1\}//p' "$0"; }

case ${1:-} in
  setup) setup ;;
  source) [[ -n ${2:-} ]] || { echo "usage: peers.sh source DIR" >&2; exit 2; }; build_from_source "$2" ;;
  start) start ;;
  run) running || die "the daemons do not run: \`scripts/peers.sh start\`"; inside "${@:2}" ;;
  with) with "${@:2}" ;;
  versions) running || die "the daemons do not run: \`scripts/peers.sh start\`"; versions ;;
  status) if running; then echo running; else echo stopped; exit 1; fi ;;
  stop) stop ;;
  sweep) sweep ;;
  -h | --help) usage ;;
  *) usage >&2; exit 2 ;;
esac
