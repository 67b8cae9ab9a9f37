#!/bin/sh
# Side by side with the peers, on one PostgreSQL:
#   PEERS="node" sh tests/interop/run.sh
# Uses the server of TEST_DATABASE_URL (a role that may create databases), else starts a private one
# in a temporary folder and removes it at the end.
set -eu
cd "$(dirname "$0")"
PEERS=${PEERS:-node rust}

say() { printf '%s\n' "$*" >&2; }

# The folder of the PostgreSQL programs: in the PATH, else the newest of the usual places.
if ! command -v initdb >/dev/null 2>&1 || ! command -v pg_dump >/dev/null 2>&1; then
  bin=$(ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin \
    /usr/local/opt/postgresql*/bin 2>/dev/null | sort -V | tail -n 1)
  [ -n "$bin" ] || { say "PostgreSQL's programs (initdb, pg_dump) are missing"; exit 1; }
  PATH="$bin:$PATH"
  export PATH
fi

# A server refuses to run as root, so root lends it an unprivileged user.
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
  # A free port, asked of the system.
  port=$(node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close(); })')
  as_server "$(command -v pg_ctl)" -D "$folder/data" -l "$folder/data/log" -w \
    -o "-p $port -k '$folder' -c listen_addresses=127.0.0.1 -c fsync=off" start >/dev/null
  DATABASE_URL="postgres://postgres@127.0.0.1:$port/postgres"
fi
export DATABASE_URL

for peer in $PEERS; do
  case $peer in
    node)
      # Node's 0.18 asks for a newer Node.js than 0.16; npm only warns.
      npm ci --no-audit --no-fund --loglevel=error
      node schema.mjs
      ;;
    *)
      say "$peer: nothing of the schema to compare"
      ;;
  esac
done
