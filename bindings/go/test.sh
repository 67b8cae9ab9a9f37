#!/bin/sh
# Runs all checks of the Go package: sh bindings/go/test.sh
#   GRAPHILE_WORKER_PREFIX  where the library is installed (include/, lib/, lib/pkgconfig/)
#   GRAPHILE_WORKER_BIN     the program graphile-worker, whose `dev` starts a private PostgreSQL
# Needs Go 1.19 or newer, a C compiler and pkg-config. Go downloads the drivers through its module proxy.
set -eu
cd "$(dirname "$0")"

prefix=${GRAPHILE_WORKER_PREFIX:?is not set: set it to the folder of an installation, for example of \`make stage\`}
program=${GRAPHILE_WORKER_BIN:?is not set: set it to the program graphile-worker, for example of cargo build}
export PKG_CONFIG_PATH="$prefix/lib/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}"
export LD_LIBRARY_PATH="$prefix/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export DYLD_LIBRARY_PATH="$LD_LIBRARY_PATH"
# The tests must not use settings from the caller's environment.
unset $(env | sed -n 's/^\(GRAPHILE_WORKER_[A-Z_]*\)=.*/\1/p')

work=$(mktemp -d)
server=
trap 'status=$?; [ -z "$server" ] || kill "$server" 2>/dev/null || :; wait 2>/dev/null || :; rm -rf "$work"; exit "$status"' EXIT
trap 'exit 130' INT TERM

step() {
  echo "== $*"
  "$@"
}

formatted() {
  unformatted=$(gofmt -l . ../../tests/conformance/adapter)
  [ -z "$unformatted" ] || { echo "gofmt would change: $unformatted" >&2; return 1; }
}

# Checks that the example, linked in either way, prints its greeting.
says_hello() {
  printed=$("$@")
  case $printed in
    "Hello, Ada! Attempt 1 of job "*) echo "$printed" ;;
    *) echo "$*: printed $printed" >&2; return 1 ;;
  esac
}

in_folder() {
  (cd "$1" && shift && "$@")
}

mkfifo "$work/url"
"$program" dev >"$work/url" &
server=$!
exec 3<"$work/url"
read -r DATABASE_URL <&3 || { echo "$program dev: no database" >&2; exit 1; }
export DATABASE_URL

# Turns on Go's checks of pointers passed to C: an experiment since Go 1.21, a setting in older versions.
if GOEXPERIMENT=cgocheck2 go version >/dev/null 2>&1; then pointers=GOEXPERIMENT=cgocheck2; else pointers=GODEBUG=cgocheck=2; fi

step formatted
step go vet ./...
step go test -race ./...
step env "$pointers" go test ./...

step go build -o "$work/hello" ./examples/hello
step says_hello "$work/hello"
case $(uname -s) in
  Linux)
    step go build -tags graphile_worker_static -o "$work/hello-static" ./examples/hello
    step says_hello env -u LD_LIBRARY_PATH "$work/hello-static"
    ;;
esac

step in_folder drivertest go vet ./...
step in_folder drivertest go test -race ./...
step in_folder ../../tests/conformance/adapter go vet ./...
step in_folder ../../tests/conformance/adapter go build -o "$work/adapter-go" .
echo "== Go: all done"
