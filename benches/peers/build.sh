#!/bin/sh
# Builds the drivers that benches/peers.rs runs, in the folder peers of cargo's target folder: sh benches/peers/build.sh
# Needs cargo, npm, Python and Go. River asks for a new Go; a Go from 1.21 on fetches that by itself.
set -eu
cd "$(dirname "$0")"

root=$(cd ../.. && pwd)
mkdir -p "${CARGO_TARGET_DIR:-$root/target}/peers"
out=$(cd "${CARGO_TARGET_DIR:-$root/target}/peers" && pwd)

cargo build --locked --release --manifest-path async/Cargo.toml --target-dir "$out/cargo"
(cd node && npm ci --no-audit --no-fund --loglevel=error)
(cd river && go build -o "$out/river" .)
[ -x "$out/python/bin/python" ] || "${PYTHON:-python3}" -m venv "$out/python"
"$out/python/bin/pip" install --quiet --disable-pip-version-check -r procrastinate/requirements.txt
