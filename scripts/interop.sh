#!/usr/bin/env bash
# Has other tools read what kiln writes, and kiln read what they write: skopeo, umoci, buildah, tar; docker if one runs.
set -euo pipefail
source "$(dirname "$0")/env.sh"

WORK=$(mktemp -d -t kiln-interop-XXXXXX)
# podman takes no path of more than 50 characters for it.
PODMAN_RUN=$(mktemp -d /tmp/kiln-podman-XXXXXX)
at_exit 'rm -rf "$WORK" "$PODMAN_RUN"'
FAILED=0
LINE='hello, others: built on'

kiln() { "$KILN" --state "$WORK/state" "$@"; }

build() {
  kiln build --progress plain --build-arg REGISTRY="$REGISTRY" --build-arg NAME=others "$@" "$ROOT/examples/hello"
}

# check WHAT COMMAND…: one line of verdict, and the command's output when it fails.
check() {
  local what=$1
  shift
  if "$@" >"$WORK/log" 2>&1; then
    printf 'ok      %s\n' "$what"
  else
    printf 'FAILED  %s\n' "$what"
    tail -n 15 "$WORK/log" | sed 's/^/    /'
    FAILED=1
  fi
}

# skopeo copies an image out of anything it knows; the config's digest must be the image's id.
same_image() {
  local source=$1 out
  out=$(mktemp -d "$WORK/dir-XXXXXX")
  skopeo copy --quiet --src-tls-verify=false "$source" "dir:$out"
  python3 - "$out/manifest.json" "$(<"$WORK/iid")" <<'PY'
import json, sys
found = json.load(open(sys.argv[1]))["config"]["digest"]
sys.exit(None if found == sys.argv[2] else f"the config is {found}, the id was {sys.argv[2]}")
PY
}

# unpacked_by_umoci LAYOUT: its files, with their modes.
unpacked_by_umoci() {
  umoci unpack --image "$WORK/$1:latest" "$WORK/bundle-$1"
  grep -qF 'hello, others' "$WORK/bundle-$1/rootfs/usr/local/bin/hello"
  [[ $(stat -c %a "$WORK/bundle-$1/rootfs/tmp") == 1777 ]]
}

# Whoever knows gzip alone finds the tar, and the members of every layer are whole.
gunzipped() {
  local blob
  for blob in $(find "$WORK/estargz/blobs" -type f); do
    if [[ $(head -c 2 "$blob" | od -An -tx1 | tr -d ' ') == 1f8b ]]; then gzip -t "$blob" && tar -tzf "$blob" >/dev/null; fi
  done
}

loaded_by_podman() {
  podman_ load -i "$WORK/docker.tar"
  podman_ load -i "$WORK/oci.tar"
  podman_ image inspect --format '{{.Id}}' interop | grep -F "${1#sha256:}"
}

podman_() {
  podman --root "$WORK/podman" --runroot "$PODMAN_RUN" --storage-driver vfs "$@"
}

in_tar() {
  # Not by a pipe: grep would hang up on tar at the first match.
  tar tf "$WORK/files.tar" >"$WORK/names"
  grep -qE '^(\./)?usr/local/bin/hello$' "$WORK/names"
}

as_files() { grep -qF 'hello, others' "$WORK/files/usr/local/bin/hello"; }

run_by_buildah() {
  local container
  container=$(buildah_ from --tls-verify=false "docker://$REGISTRY/interop/hello:1")
  buildah_ run --isolation chroot "$container" hello | grep -F "$LINE"
  buildah_ config --entrypoint '["hello"]' --user nobody "$container"
  buildah_ commit --tls-verify=false "$container" "docker://$REGISTRY/interop/by-buildah:1"
}

run_from_buildah() {
  kiln pull "$REGISTRY/interop/by-buildah:1"
  kiln run --rm "$REGISTRY/interop/by-buildah:1" | grep -F "$LINE"
}

loaded_from_skopeo() {
  skopeo copy --quiet --src-tls-verify=false "docker://$REGISTRY/interop/hello:1" "docker-archive:$WORK/skopeo.tar:from-skopeo:1"
  kiln load -i "$WORK/skopeo.tar"
  kiln run --rm from-skopeo:1 | grep -F "$LINE"
}

base_from_layout() {
  mkdir "$WORK/on-layout"
  printf 'FROM base\nRUN id -un >/tmp/who\n' >"$WORK/on-layout/Dockerfile"
  kiln build --progress plain --build-context base="oci-layout://$WORK/layout" -o "type=local,dest=$WORK/on-layout-out" "$WORK/on-layout"
  [[ $(<"$WORK/on-layout-out/tmp/who") == nobody ]]
}

loaded_by_docker() { docker load -i "$WORK/docker.tar" && docker run --rm interop:latest | grep -F "$LINE"; }

buildah_() {
  CONTAINERS_STORAGE_CONF=$WORK/storage.conf buildah "$@"
}

main() {
  kiln_binary
  packages skopeo umoci buildah podman
  with_registry
  "$ROOT/scripts/bases.sh" busybox debian
  printf '[storage]\ndriver = "vfs"\nrunroot = "%s/run"\ngraphroot = "%s/graph"\n' "$WORK" "$WORK" >"$WORK/storage.conf"

  check 'kiln build into the store' build -t interop --iidfile "$WORK/iid"
  check 'kiln build --push' build --push -t "$REGISTRY/interop/hello:1"
  check 'kiln build -o type=oci' build -t interop -o "type=oci,dest=$WORK/oci.tar"
  check 'kiln build -o type=oci,tar=false' build -t interop:latest -o "type=oci,tar=false,dest=$WORK/layout"
  check 'kiln build -o type=docker' build -t interop -o "type=docker,dest=$WORK/docker.tar"
  check 'kiln build -o type=docker,tar=false' build -t interop:latest -o "type=docker,tar=false,oci-mediatypes=false,dest=$WORK/docker"
  for compression in uncompressed zstd estargz; do
    check "kiln build -o …,compression=$compression" build -t interop:latest \
      -o "type=oci,tar=false,dest=$WORK/$compression,compression=$compression,force-compression=true"
  done
  check 'kiln build -o type=tar' build -o "type=tar,dest=$WORK/files.tar"
  check 'kiln build -o type=local' build -o "type=local,dest=$WORK/files"
  check 'kiln save' kiln save -o "$WORK/saved.tar" interop

  check 'skopeo reads the registry' same_image "docker://$REGISTRY/interop/hello:1"
  check 'skopeo reads the OCI archive' same_image "oci-archive:$WORK/oci.tar"
  check 'skopeo reads the OCI layout' same_image "oci:$WORK/layout"
  check 'skopeo reads the docker archive' same_image "docker-archive:$WORK/docker.tar"
  check 'skopeo reads what was saved' same_image "docker-archive:$WORK/saved.tar"
  check "skopeo reads the layout of docker's media types" same_image "oci:$WORK/docker"
  check 'skopeo reads the layout without compression' same_image "oci:$WORK/uncompressed"
  check 'skopeo reads the layout with zstd' same_image "oci:$WORK/zstd"
  check 'umoci unpacks the layout' unpacked_by_umoci layout
  check 'umoci unpacks the layout without compression' unpacked_by_umoci uncompressed
  check 'umoci unpacks the layout with eStargz' unpacked_by_umoci estargz
  check 'gzip and tar read eStargz layers' gunzipped
  check 'podman loads both archives' loaded_by_podman "$(<"$WORK/iid")"
  check 'tar lists the files' in_tar
  check 'the files are there' as_files
  check 'buildah pulls and runs it' run_by_buildah
  check 'kiln pulls and runs what buildah made' run_from_buildah
  check 'kiln loads and runs what skopeo saved' loaded_from_skopeo
  check 'kiln builds on an OCI layout' base_from_layout
  if docker info >/dev/null 2>&1; then check 'docker loads and runs it' loaded_by_docker; fi
  return $FAILED
}

main "$@"
