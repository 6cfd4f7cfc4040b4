#!/usr/bin/env bash
# A valgrind that knows the system calls kiln makes: prints the directory that has its bin/ and libexec/.
#
# The machine's own, or else that of Debian 13, unpacked below KILN_CACHE and not installed: Debian 12's has no `openat2`.
# Its tools are linked statically, so they run on either.
set -euo pipefail
source "$(dirname "$0")/env.sh"

# The first that is known to do.
WANTED=3.24
SUITE=trixie
KEYS=/usr/share/keyrings/debian-archive-keyring.gpg

is_new_enough() {
  local version
  version=$("$1" --version 2>/dev/null) || return 1
  printf '%s\n' "$WANTED" "${version#valgrind-}" | sort --version-sort --check=quiet
}

# Where this machine takes Debian's packages from.
mirror() {
  local uri
  if [[ -n ${KILN_MIRROR:-} ]]; then read -r _ uri _ <<<"$KILN_MIRROR"; echo "$uri"; return; fi
  apt-get indextargets 'Created-By: Packages' 'Origin: Debian' --format "\$(REPO_URI) \$(RELEASE)" | awk '$2 !~ /-/ { print $1; exit }'
}

fetch() {
  local dir=$1 uri
  uri=$(mirror)
  [[ -n $uri ]] || die "apt knows no mirror of Debian: run \`apt-get update\`"
  rm -rf "$dir"
  mkdir -p "$dir"/{lists,cache}/partial "$dir/cache/archives/partial" "$dir"/usr/{bin,libexec/valgrind}
  echo "deb [signed-by=$KEYS] $uri $SUITE main" >"$dir/sources"
  local apt=(apt-get -qq -o "Dir::Etc::SourceList=$dir/sources" -o Dir::Etc::SourceParts=/dev/null -o APT::Sandbox::User=root
    -o "Dir::State::Lists=$dir/lists" -o "Dir::Cache=$dir/cache" -o Acquire::Languages=none)
  (cd "$dir" && "${apt[@]}" update >&2 && "${apt[@]}" download valgrind >&2)
  dpkg-deb -x "$dir"/valgrind_*.deb "$dir/package"
  cp "$dir"/package/usr/bin/{valgrind.bin,callgrind_annotate} "$dir/usr/bin"
  cp "$dir"/package/usr/libexec/valgrind/{callgrind-*,vgpreload_core-*,default.supp} "$dir/usr/libexec/valgrind"
  rm -rf "$dir"/{lists,cache,package,sources} "$dir"/*.deb
  touch "$dir/whole"
}

if is_new_enough valgrind; then
  own=$(command -v valgrind)
  dirname "$(dirname "$own")"
  exit
fi
KEPT=$KILN_CACHE/valgrind
[[ -e $KEPT/whole ]] || fetch "$KEPT"
echo "$KEPT/usr"
