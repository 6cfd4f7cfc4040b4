#!/usr/bin/env bash
# Lets this machine's kernel run arm64 programs by Debian's qemu, for the tests that build for another platform.
#
#   emulator.sh start    registers it unless something is registered for arm64; prints where an arm64 busybox is
#   emulator.sh stop     takes back what `start` registered
#
# The kernel keeps an entry as long as the list of them is mounted somewhere: here by a process with mounts of its own.
set -euo pipefail
source "$(dirname "$0")/env.sh"

HOLDER=$KILN_CACHE/emulator.pid
ENTRY=':kiln-test-arm64:M'
ENTRY+='::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
ENTRY+=':\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
ENTRY+=':/usr/libexec/qemu-binfmt/aarch64-binfmt-P:PF' # as Debian registers it

register() {
  "$1" uname -m >/dev/null 2>&1 && return
  packages qemu-user-static
  mkdir -p "$KILN_CACHE"
  rm -f "$HOLDER"
  HOLDER=$HOLDER ENTRY=$ENTRY setsid unshare --mount --propagation private bash -euc '
    mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
    printf %s "$ENTRY" >/proc/sys/fs/binfmt_misc/register
    echo $$ >"$HOLDER"
    exec sleep infinity' </dev/null >/dev/null 2>&1 &
  for _ in {1..50}; do [[ -s $HOLDER ]] && return; sleep 0.1; done
  die "the emulator could not be registered"
}

stop() {
  [[ -s $HOLDER ]] || return 0
  kill "$(<"$HOLDER")" 2>/dev/null || true
  rm -f "$HOLDER"
}

# A program for arm64, unpacked and not installed. apt is told to be of that architecture, apart from the machine's own.
busybox() {
  local dir=$KILN_BASES/arm64
  if [[ ! -x $dir/busybox ]]; then
    rm -rf "$dir"
    mkdir -p "$dir"/{lists,cache}/partial "$dir/cache/archives/partial"
    local apt=(apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root
      -o "Dir::State::lists=$dir/lists" -o "Dir::Cache=$dir/cache" -o Dir::State::status=/dev/null)
    (cd "$dir" && "${apt[@]}" update >&2 && "${apt[@]}" download busybox-static >&2)
    dpkg-deb -x "$dir"/busybox-static_*.deb "$dir/package"
    install -m 755 "$(find "$dir/package" -path '*/bin/busybox')" "$dir/busybox"
    rm -rf "$dir"/{lists,cache,package} "$dir"/*.deb
  fi
  echo "$dir/busybox"
}

((EUID == 0)) || die "an emulator is registered by root"
case ${1:-} in
  start)
    program=$(busybox)
    register "$program"
    echo "$program"
    ;;
  stop) stop ;;
  *) echo "error: say \`start\` or \`stop\`" >&2; exit 2 ;;
esac
