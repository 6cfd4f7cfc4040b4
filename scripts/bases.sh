#!/usr/bin/env bash
# Makes base images from Debian packages and pushes them to the registry on loopback.
#
#   bases.sh [busybox] [debian] [python] [golang] [node]      default: busybox debian
#
# Packages come from wherever this machine's apt takes them; set KILN_MIRROR ("deb URI SUITE COMPONENTS") to say otherwise.
# Results are kept under KILN_BASES (an OCI layout each) and made again only when their recipe below changes.
# busybox:latest  debian:bookworm-slim  python:bookworm  golang:bookworm  node:bookworm
set -euo pipefail
source "$(dirname "$0")/env.sh"

CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt
SUITE=bookworm
PATH_ENV=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

tag_of() {
  case $1 in
    busybox) echo latest ;;
    debian) echo bookworm-slim ;;
    *) echo bookworm ;;
  esac
}

# apt's own sources of Debian packages, one line each.
sources() {
  if [[ -n ${KILN_MIRROR:-} ]]; then echo "$KILN_MIRROR"; return; fi
  # Before the first update apt knows no origins.
  compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null || apt-get update -qq >&2
  apt-get indextargets 'Created-By: Packages' 'Origin: Debian' --format "deb \$(REPO_URI) \$(RELEASE) \$(COMPONENT)" |
    grep -F " $SUITE" | sort -u
}

make_busybox() {
  local root=$1/rootfs
  # Unpacked, not installed: the package conflicts with the one a host may have.
  local download=(apt-get -o APT::Sandbox::User=root download -qq busybox-static)
  (cd "$1" && { "${download[@]}" || { apt-get update -qq && "${download[@]}"; }; })
  dpkg-deb -x "$1"/busybox-static_*.deb "$1/package"
  mkdir -p "$root"/{bin,etc,root,home,proc,sys,dev,tmp,var/tmp,usr/bin,usr/sbin,sbin}
  chmod 1777 "$root"/tmp "$root"/var/tmp
  chmod 700 "$root"/root
  install -m 755 "$(find "$1/package" -path '*/bin/busybox')" "$root/bin/busybox"
  chroot "$root" /bin/busybox --install /bin
  cat >"$root/etc/passwd" <<'END'
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
END
  cat >"$root/etc/group" <<'END'
root:x:0:
daemon:x:1:
bin:x:2:
www-data:x:33:
users:x:100:
nogroup:x:65534:
END
  install -D -m 644 "$CA_BUNDLE" "$root$CA_BUNDLE"
  pack busybox --layer "$root" --env "$PATH_ENV" --cmd sh
}

make_debian() {
  local root=$1/rootfs options=()
  packages mmdebstrap
  # What this machine's apt needs to get out (a proxy, say) is needed inside a RUN step too.
  mapfile -t options < <(apt-config dump | sed -nE 's/^(Acquire::[^ ]*Proxy[^ ]* .*)/--aptopt=\1/ip')
  sources >"$1/sources.list"
  mmdebstrap --quiet --mode=root --variant=minbase --include=ca-certificates "${options[@]}" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    "$SUITE" "$root" - <"$1/sources.list"
  install -m 644 "$CA_BUNDLE" "$root$CA_BUNDLE"
  tidy_debian "$root"
  pack debian --layer "$root" --env "$PATH_ENV" --cmd bash
}

make_python() {
  local pip_conf=$'[global]\ncert = '$CA_BUNDLE$'\nbreak-system-packages = true\nroot-user-action = ignore\n'
  derive "$1" "apt-get install -qq --no-install-recommends python3 python3-pip
    ln -s python3 /usr/bin/python
    printf '%s' '$pip_conf' >/etc/pip.conf"
  pack python --from "$KILN_BASES/debian/oci" --layer "$1/upper" --env SSL_CERT_FILE=$CA_BUNDLE --cmd python3
}

make_golang() {
  derive "$1" "apt-get install -qq --no-install-recommends golang-go"
  pack golang --from "$KILN_BASES/debian/oci" --layer "$1/upper" --env SSL_CERT_FILE=$CA_BUNDLE --env GOPATH=/go \
    --env GOTOOLCHAIN=local --workdir /go --cmd bash
}

make_node() {
  derive "$1" "apt-get install -qq --no-install-recommends nodejs npm"
  pack node --from "$KILN_BASES/debian/oci" --layer "$1/upper" --env NODE_EXTRA_CA_CERTS=$CA_BUNDLE \
    --env npm_config_update_notifier=false --env npm_config_fund=false --env npm_config_audit=false --cmd node
}

# Runs a script as root in the debian base; what it changes ends up in DIR/upper, as an overlay upper directory.
derive() {
  local dir=$1 script=$2
  make debian
  mkdir -p "$dir"/{upper,work,merged}
  cp /etc/resolv.conf "$dir/resolv.conf"
  # The mounts live in a namespace of their own and go with it, whatever happens.
  DIR=$dir LOWER=$KILN_BASES/debian/rootfs SCRIPT="set -e
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    $script" \
    unshare --mount --pid --fork --kill-child --propagation private bash -euc '
      mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$DIR/upper,workdir=$DIR/work" "$DIR/merged"
      mount -t proc proc "$DIR/merged/proc"
      mount --rbind /dev "$DIR/merged/dev"
      [[ -e $DIR/merged/etc/resolv.conf ]] || : >"$DIR/merged/etc/resolv.conf"
      mount --bind "$DIR/resolv.conf" "$DIR/merged/etc/resolv.conf"
      exec chroot "$DIR/merged" /usr/bin/env -i HOME=/root "'"$PATH_ENV"'" bash -c "$SCRIPT" >"$DIR/log" 2>&1
    ' || { tail -20 "$dir/log" >&2; die "cannot make the base in $dir"; }
  # Opening a file for writing copied it up: only what the script changed belongs in the layer.
  rm -f "$dir/upper/etc/resolv.conf"
  tidy_debian "$dir/upper"
}

# Leaves out lists, caches and logs: they make images big and no two alike.
tidy_debian() {
  local root=$1
  rm -rf "$root"/var/lib/apt/lists/*_* "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb \
    "$root"/var/cache/debconf/*-old "$root"/var/cache/ldconfig/aux-cache "$root"/var/log/{apt,dpkg.log,alternatives.log,bootstrap.log} \
    "$root"/root/.cache "$root"/tmp/* "$root"/etc/hostname
  find "$root" -name __pycache__ -type d -prune -exec rm -rf {} +
}

pack() {
  local name=$1
  shift
  "$ROOT/scripts/pack_oci.py" "$KILN_BASES/$name/oci" --tag "$(tag_of "$name")" "$@" >/dev/null
}

# What a base was made by: a change of it makes the base anew.
recipe() {
  { declare -f "make_$1" derive tidy_debian pack; cat "$ROOT/scripts/pack_oci.py"
    case $1 in busybox) ;; debian) sources ;; *) recipe debian ;; esac
  } | sha256sum | cut -d' ' -f1
}

make() {
  local name=$1 dir=$KILN_BASES/$1 wanted started=$SECONDS
  wanted=$(recipe "$name")
  [[ $(cat "$dir/recipe" 2>/dev/null) == "$wanted" ]] && return
  ((EUID == 0)) || die "making base images needs root"
  say "making the base image $name"
  rm -rf "$dir"
  mkdir -p "$dir"
  "make_$name" "$dir"
  # Only debian's tree is needed again, as the ground of the others.
  rm -rf "$dir"/{package,upper,work,merged} "$dir"/*.deb
  [[ $name == debian ]] || rm -rf "$dir/rootfs"
  echo "$wanted" >"$dir/recipe"
  say "made $name in $((SECONDS - started)) s, $(du -sm "$dir/oci" | cut -f1) MiB packed"
}

push() {
  local name=$1 tag digest here
  tag=$(tag_of "$name")
  here=$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["manifests"][0]["digest"])' "$KILN_BASES/$name/oci/index.json")
  digest=$(curl -fsSI --noproxy '*' -H 'Accept: application/vnd.oci.image.manifest.v1+json' \
    "http://$ADDRESS/v2/$name/manifests/$tag" 2>/dev/null | tr -d '\r' | sed -n 's/^[Dd]ocker-[Cc]ontent-[Dd]igest: //p') || true
  [[ $digest == "$here" ]] && return
  packages skopeo
  skopeo copy --quiet --dest-tls-verify=false "oci:$KILN_BASES/$name/oci:$tag" "docker://$ADDRESS/$name:$tag"
  say "pushed $ADDRESS/$name:$tag"
}

main() {
  (($#)) || set -- busybox debian
  local name
  for name in "$@"; do
    declare -F "make_$name" >/dev/null || { echo "error: no base \`$name\`; there are busybox, debian, python, golang, node" >&2; exit 2; }
  done
  mkdir -p "$KILN_BASES"
  exec 8>"$KILN_BASES/lock"
  flock 8
  ADDRESS=$("$ROOT/scripts/registry.sh" start 8>&-)
  for name in "$@"; do
    make "$name"
    push "$name"
  done
}

main "$@"
