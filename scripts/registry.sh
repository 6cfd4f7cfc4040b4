#!/usr/bin/env bash
# A real registry on loopback: registry.sh start | stop | address | status
#
# It listens on 127.0.0.1:5000, or on any free port when that one is taken. Its data stay in the cache directory.
set -euo pipefail
source "$(dirname "$0")/env.sh"

PID_FILE=$REGISTRY_DIR/pid
ADDRESS_FILE=$REGISTRY_DIR/address

# True when the pid file names a registry that is still ours.
running() {
  [[ -s $PID_FILE ]] || return 1
  local pid
  pid=$(<"$PID_FILE")
  [[ $(cat "/proc/$pid/comm" 2>/dev/null) == docker-registry ]] || return 1
  tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF "$REGISTRY_DIR/config.yml"
}

free_port() {
  python3 - "${KILN_REGISTRY_PORT:-5000}" <<'PY'
import socket, sys
for port in (int(sys.argv[1]), 0):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            continue
        print(s.getsockname()[1])
        break
PY
}

start() {
  mkdir -p "$REGISTRY_DIR"
  exec 9>"$REGISTRY_DIR/lock"
  flock 9
  running && return 0
  command -v curl >/dev/null || packages curl
  packages docker-registry
  local address pid
  address=127.0.0.1:$(free_port)
  cat >"$REGISTRY_DIR/config.yml" <<YAML
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: $REGISTRY_DIR/data}, delete: {enabled: true}}
http: {addr: $address}
YAML
  # fd 9 is closed for the registry, or it would hold the lock for as long as it runs.
  setsid docker-registry serve "$REGISTRY_DIR/config.yml" >"$REGISTRY_DIR/log" 2>&1 </dev/null 9>&- &
  pid=$!
  echo "$pid" >"$PID_FILE"
  echo "$address" >"$ADDRESS_FILE"
  for _ in {1..100}; do
    # The answer counts only while our own process lives: another server may own the port.
    kill -0 "$pid" 2>/dev/null || die "the registry did not start, see $REGISTRY_DIR/log"
    curl -fsS --noproxy '*' -o /dev/null "http://$address/v2/" 2>/dev/null && return 0
    sleep 0.1
  done
  die "the registry does not answer, see $REGISTRY_DIR/log"
}

stop() {
  running || return 0
  local pid
  pid=$(<"$PID_FILE")
  kill "$pid"
  for _ in {1..50}; do
    [[ -d /proc/$pid ]] || break
    sleep 0.1
  done
  rm -f "$PID_FILE" "$ADDRESS_FILE"
}

case ${1:-} in
  start) start && cat "$ADDRESS_FILE" ;;
  stop) stop ;;
  address) running && cat "$ADDRESS_FILE" ;;
  status) if running; then echo "running on $(<"$ADDRESS_FILE")"; else echo stopped; exit 1; fi ;;
  *) echo "usage: registry.sh start|stop|address|status" >&2; exit 2 ;;
esac
