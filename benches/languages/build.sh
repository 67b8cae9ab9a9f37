#!/bin/sh
# Builds the programs that benches/languages.rs runs: sh benches/languages/build.sh
#   GRAPHILE_WORKER_PREFIX    the folder in which the library is installed
#   GRAPHILE_WORKER_ADAPTERS  the folder for the programs; target/adapters if not set
set -eu
cd "$(dirname "$0")"

prefix=${GRAPHILE_WORKER_PREFIX:?is not set: set it to the folder of an installation, for example of \`make stage\`}
root=$(cd ../.. && pwd)
mkdir -p "${GRAPHILE_WORKER_ADAPTERS:-$root/target/adapters}"
adapters=$(cd "${GRAPHILE_WORKER_ADAPTERS:-$root/target/adapters}" && pwd)
export PKG_CONFIG_PATH="$prefix/lib/pkgconfig"

# shellcheck disable=SC2046 # several flags
${CC:-cc} -std=c11 -O2 -o "$adapters/noop-c" noop.c $(pkg-config --cflags --libs graphile_worker) -Wl,-rpath,"$prefix/lib"
(cd go && CGO_LDFLAGS="-Wl,-rpath,$prefix/lib" go build -o "$adapters/noop-go" .)
[ -x "$adapters/python/bin/python" ] || "${PYTHON:-python3}" -m venv "$adapters/python"
"$adapters/python/bin/pip" install --quiet --disable-pip-version-check "$root/bindings/python" 'procrastinate==3.10.0' 'psycopg[binary]'
