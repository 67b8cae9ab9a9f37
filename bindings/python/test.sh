#!/bin/sh
# Installs the package into a fresh virtual environment, and runs its tests there against a private PostgreSQL.
#
#   GRAPHILE_WORKER_PREFIX  the folder in which the library is installed; if not set, cargo builds the library
#   GRAPHILE_WORKER_BIN     the program graphile-worker, which starts the PostgreSQL; searched in PATH if not set
#   PYTHON                  the interpreter; python3 if not set
#
# Arguments are passed to unittest and select the tests to run: test_tasks, or -k snooze test_tasks. Default: all tests.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
server=
cleanup() {
    if [ -n "$server" ]; then kill "$server" 2>/dev/null && wait "$server" || true; fi
    rm -rf "$folder"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

mkfifo "$folder/url"
"${GRAPHILE_WORKER_BIN:-graphile-worker}" dev >"$folder/url" 2>"$folder/server.log" &
server=$!

"${PYTHON:-python3}" -m venv "$folder/venv"
python=$folder/venv/bin/python
"$python" -m pip install --quiet --disable-pip-version-check "$here" "setuptools>=64" wheel \
    -r "$here/tests/drivers/requirements.txt"

exec 3<"$folder/url"
if ! read -r TEST_DATABASE_URL <&3; then
    cat "$folder/server.log" >&2
    exit 1
fi
export TEST_DATABASE_URL

# The tests must not use the library or the database that the caller's environment names.
unset GRAPHILE_WORKER_LIBRARY DATABASE_URL PYTHONPATH
cd "$here/tests"
if [ $# -gt 0 ]; then
    "$python" -W error::ResourceWarning -m unittest --buffer "$@"
else
    "$python" -W error::ResourceWarning -m unittest discover --buffer
    cd drivers
    PYTHONPATH=.. "$python" -W error::ResourceWarning -m unittest discover --buffer
fi
