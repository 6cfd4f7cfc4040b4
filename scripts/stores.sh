#!/usr/bin/env bash
# Installs the object stores that tests talk to, and prints where they are, as assignments: moto for S3, and Azurite for
# Azure's blobs where there is npm.
set -euo pipefail
source "$(dirname "$0")/env.sh"

MOTO=5.2.5
AZURITE=3.35.0
DIR=$KILN_CACHE/stores

packages python3-venv
if [[ ! -e $DIR/moto-$MOTO/done ]]; then
  say "installing moto $MOTO"
  rm -rf "$DIR/moto-$MOTO"
  python3 -m venv "$DIR/moto-$MOTO"
  "$DIR/moto-$MOTO/bin/pip" install -q --disable-pip-version-check "moto[s3]==$MOTO" flask flask-cors >&2
  touch "$DIR/moto-$MOTO/done"
fi
echo "KILN_TEST_MOTO=$DIR/moto-$MOTO/bin/moto_server"

if ! command -v npm >/dev/null; then
  say "no npm, so no Azurite: caches in Azure are tested up to its API only"
  exit 0
fi
if [[ ! -e $DIR/azurite-$AZURITE/done ]]; then
  say "installing Azurite $AZURITE"
  rm -rf "$DIR/azurite-$AZURITE"
  mkdir -p "$DIR/azurite-$AZURITE"
  npm install --silent --no-audit --no-fund --prefix "$DIR/azurite-$AZURITE" "azurite@$AZURITE" >&2
  touch "$DIR/azurite-$AZURITE/done"
fi
echo "KILN_TEST_AZURITE=$DIR/azurite-$AZURITE/node_modules/.bin/azurite-blob"
