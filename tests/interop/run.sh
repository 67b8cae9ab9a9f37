#!/bin/sh
# Tests this library together with its peers, on one PostgreSQL:
#   PEERS="node rust" sh tests/interop/run.sh
# node: versions 0.16, 0.17 and 0.18 for Node; rust: the async crate's 0.13 and 0.14, compiled by this script.
# Uses the server of TEST_DATABASE_URL, whose role must be allowed to create databases. If it is not set, the
# script starts a private server in a temporary folder and removes it at the end.
set -eu
cd "$(dirname "$0")"
PEERS=${PEERS:-node rust}

say() { printf '%s\n' "$*" >&2; }

for peer in $PEERS; do
  case $peer in
    node | rust) ;;
    *) say "PEERS: unknown peer '$peer' (known: node, rust)"; exit 2 ;;
  esac
done
# Node.js runs all tests.
for tool in node npm cargo; do
  command -v "$tool" >/dev/null 2>&1 || { say "$tool is missing; run sh tests/setup.sh node to install it"; exit 1; }
done

# If PostgreSQL's programs are not in the PATH, use the newest version in the usual folders.
if ! command -v initdb >/dev/null 2>&1 || ! command -v pg_dump >/dev/null 2>&1; then
  bin=$(ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin \
    /usr/local/opt/postgresql*/bin 2>/dev/null | sort -V | tail -n 1)
  [ -n "$bin" ] || { say "PostgreSQL's programs (initdb, pg_dump) are missing"; exit 1; }
  PATH="$bin:$PATH"
  export PATH
fi

# PostgreSQL refuses to run as root, so root runs it as the user postgres.
as_server() {
  if [ "$(id -u)" -ne 0 ]; then
    "$@"
  elif command -v runuser >/dev/null 2>&1; then
    runuser -u postgres -- "$@"
  else
    su postgres -s /bin/sh -c 'exec "$0" "$@"' -- "$@"
  fi
}

folder=
end() {
  status=$?
  trap - EXIT INT TERM HUP
  if [ -n "$folder" ]; then
    as_server "$(command -v pg_ctl)" -D "$folder/data" -m immediate -w stop >/dev/null 2>&1 || true
    rm -rf "$folder"
  fi
  exit "$status"
}
trap end EXIT
trap 'exit 130' INT TERM HUP

if [ -n "${TEST_DATABASE_URL:-}" ]; then
  DATABASE_URL=$TEST_DATABASE_URL
else
  folder=$(mktemp -d "${TMPDIR:-/tmp}/graphile-worker-interop.XXXXXX")
  if [ "$(id -u)" -eq 0 ]; then chown postgres "$folder"; fi
  as_server "$(command -v initdb)" -D "$folder/data" -U postgres -A trust -E UTF8 --locale=C --no-sync >/dev/null
  # The system assigns a free port.
  port=$(node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close(); })')
  as_server "$(command -v pg_ctl)" -D "$folder/data" -l "$folder/data/log" -w \
    -o "-p $port -k '$folder' -c listen_addresses=127.0.0.1 -c fsync=off" start >/dev/null
  DATABASE_URL="postgres://postgres@127.0.0.1:$port/postgres"
fi
export DATABASE_URL

# Version 0.18 for Node requires a newer Node.js than 0.16 does; npm only warns.
npm ci --no-audit --no-fund --loglevel=error

target=$(cargo metadata --locked --no-deps --format-version 1 --manifest-path ../../Cargo.toml |
  node -p 'JSON.parse(require("fs").readFileSync(0)).target_directory')
cargo build --locked --quiet --manifest-path ../../Cargo.toml --example interop
OURS="$target/debug/examples/interop"
export OURS

status=0
for peer in $PEERS; do
  case $peer in
    node) node schema.mjs && node queues.mjs node || status=1 ;;
    rust)
      # Two separate packages, with one target folder to share compiled dependencies.
      for version in v13 v14; do
        cargo build --locked --quiet --manifest-path "rust/$version/Cargo.toml" --target-dir "$target/interop"
      done
      V13="$target/interop/debug/v13" V14="$target/interop/debug/v14"
      export V13 V14
      ;;
  esac
  node workers.mjs "$peer" || status=1
  node recovery.mjs "$peer" || status=1
  node cron.mjs "$peer" || status=1
done
exit "$status"
