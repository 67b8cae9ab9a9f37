#!/bin/sh
# Builds and runs every test of the C and C++ APIs against an installed library: sh bindings/c/test.sh
#   GRAPHILE_WORKER_PREFIX  the PREFIX of `make install PREFIX=…`
#   GRAPHILE_WORKER_BIN     the program graphile-worker; its `dev` starts a private PostgreSQL (not needed if DATABASE_URL is set)
#   BUILD                   the folder for build products; default target/c
#   ONLY                    some of the steps: "header symbols c cpp examples sanitizers valgrind adapters"; default all
#   VALGRIND_TESTS          words; valgrind runs the tests whose name or file contains one of them; default all
#   MAX_SIZE                the most bytes that the stripped shared library may have; default 6 MiB, for the profile `library`
# Stops at the first failure.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
prefix=${GRAPHILE_WORKER_PREFIX:?is not set: name the folder of an install, as \`make install PREFIX=…\` makes one}
prefix=$(cd "$prefix" && pwd)
mkdir -p "${BUILD:-$root/target/c}"
build=$(cd "${BUILD:-$root/target/c}" && pwd)
only=${ONLY:-header symbols c cpp examples sanitizers valgrind adapters}
CC=${CC:-cc} CXX=${CXX:-c++}

missing=
for tool in "$CC" "$CXX" pkg-config cmake valgrind nm readelf strip psql; do
  command -v "$tool" >/dev/null 2>&1 || missing="$missing $tool"
done
if [ -n "$missing" ]; then
  echo "test.sh: missing on this machine:$missing (Debian: apt-get install build-essential pkg-config cmake valgrind postgresql-client)" >&2
  exit 1
fi

export PKG_CONFIG_PATH="$prefix/lib/pkgconfig"
strict='-Wall -Wextra -Wpedantic -Werror'
flags="$(pkg-config --cflags --libs graphile_worker) -pthread -Wl,-rpath,$prefix/lib"

fail() {
  echo "test.sh: $*" >&2
  exit 1
}
step() { printf '\n== %s\n' "$*"; }
wanted() { case " $only " in *" $1 "*) ;; *) return 1 ;; esac; }

# A private database, which ends with this script.
database=
cleanup() {
  if [ -n "$database" ]; then
    kill "$database" 2>/dev/null || true
    wait "$database" 2>/dev/null || true
  fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM
if [ -z "${DATABASE_URL:-}" ]; then
  : "${GRAPHILE_WORKER_BIN:?is not set: name the program graphile-worker, or set DATABASE_URL}"
  rm -f "$build/url"
  mkfifo "$build/url"
  "$GRAPHILE_WORKER_BIN" dev >"$build/url" &
  database=$!
  IFS= read -r DATABASE_URL <"$build/url" || fail "graphile-worker dev printed no URL"
  export DATABASE_URL
fi

# --- Each header alone, in every language version of the compilers. ---

header_alone() { # COMPILER LANGUAGE HEADER STANDARD...
  compiler=$1 language=$2 header=$3
  shift 3
  for standard in "$@"; do
    extra=
    [ "$language" != c ] || extra=-Wstrict-prototypes
    # shellcheck disable=SC2086 # Several flags.
    printf '#include <%s>\nint main(void) { return 0; }\n' "$header" |
      $compiler -std=$standard $strict $extra -I"$prefix/include" -x "$language" -fsyntax-only - ||
      fail "$header does not compile alone as $standard with $compiler"
    echo "$header as $standard with $compiler"
  done
}
if wanted header; then
  step "the headers compile alone"
  header_alone "$CC" c graphile_worker.h c99 c11 c17 c2x
  header_alone "$CXX" c++ graphile_worker.h c++11 c++14 c++17 c++20 c++2b
  header_alone "$CXX" c++ graphile_worker.hpp c++17 c++20 c++2b
  for clang in clang++ clang++-19 clang++-16 clang++-14; do
    command -v "$clang" >/dev/null 2>&1 || continue
    header_alone "$clang" c++ graphile_worker.hpp c++17 c++20 c++2b
    break
  done
fi

# --- The library file: its exported symbols and its dependencies. ---

if wanted symbols; then
  step "the library exports what the header declares, and nothing else"
  library=$prefix/lib/libgraphile_worker.so
  printf '#include <graphile_worker.h>\n' | $CC -E -P -I"$prefix/include" -x c - | tr '\n' ' ' | tr ';' '\n' |
    grep -v typedef | grep -oE '\bgw_[a-z_0-9]+ *\(' | tr -d ' (' | sort >"$build/declared"
  [ -z "$(uniq -d "$build/declared")" ] || fail "declared more than once: $(uniq -d "$build/declared" | tr '\n' ' ')"
  nm -D --defined-only "$library" | awk '{ print $NF }' | sed 's/@.*//' | sort >"$build/exported"
  diff "$build/declared" "$build/exported" || fail "declared (<) and exported (>) functions differ"
  echo "$(wc -l <"$build/exported") functions"
  for function in $(cat "$build/declared"); do
    grep -qw "$function" "$root"/bindings/c/tests/*.c || fail "no test calls $function"
  done
  readelf -d "$library" >"$build/dynamic"
  grep -q 'SONAME.*\[libgraphile_worker.so.1\]' "$build/dynamic" || fail "the SONAME is not libgraphile_worker.so.1"
  grep -q NODELETE "$build/dynamic" || fail "the library is not marked NODELETE: dlclose would unmap running threads"
  needed=$(sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' "$build/dynamic" | grep -vE '^(libc|libm|libgcc_s|ld-linux[-a-z0-9_]*)\.so' || true)
  [ -z "$needed" ] || fail "the library needs $needed"
  strip -o "$build/stripped.so" "$library"
  size=$(wc -c <"$build/stripped.so")
  echo "stripped: $size bytes"
  most=${MAX_SIZE:-6291456}
  [ "$size" -lt "$most" ] || fail "the stripped library has $size bytes, $most are allowed"
fi

# --- The tests. ---

build_c() { # PROGRAM FLAG...
  program=$1
  shift
  # shellcheck disable=SC2086
  $CC -std=gnu11 -g -O1 $strict -Wstrict-prototypes "$@" -o "$program" "$root"/bindings/c/tests/*.c $flags
}
if wanted c; then
  step "the C tests"
  build_c "$build/tests"
  "$build/tests"
fi

if wanted cpp; then
  step "the C++ tests"
  $CC -std=gnu11 -g -c -o "$build/check.o" "$root/bindings/c/tests/check.c"
  # shellcheck disable=SC2086
  $CXX -std=c++17 -g -O1 $strict -o "$build/cpp-tests" "$root"/bindings/cpp/tests/*.cpp "$build/check.o" $flags
  "$build/cpp-tests"
fi

# --- The examples, built both ways, and run. ---

new_queue() { # Selects a new schema.
  queues=$((${queues:-0} + 1))
  export GRAPHILE_WORKER_SCHEMA="example_$$_$queues"
}
says() { # EXPECTED PROGRAM
  new_queue
  printed=$("$2") || fail "$2 ended with $?"
  case $printed in
    *"$1"*) echo "$2: $printed" ;;
    *) fail "$2 printed '$printed', not '$1'" ;;
  esac
}
# loop.c runs as long as its input is open. The input is closed when the first job has run.
loop_says() { # EXPECTED PROGRAM
  new_queue
  rm -f "$build/in" "$build/out"
  mkfifo "$build/in" "$build/out"
  "$2" <"$build/in" >"$build/out" &
  loop=$!
  exec 3>"$build/in" 4<"$build/out"
  echo one >&3
  IFS= read -r printed <&4 || printed=
  exec 3>&-
  wait "$loop" || fail "$2 ended with $?"
  exec 4<&-
  [ "$printed" = "$1" ] || fail "$2 printed '$printed', not '$1'"
  echo "$2: $printed"
}
run_examples() { # FOLDER
  says 'Hello! Attempt 1 of job 1: {"name": "Ada"}' "$1/hello"
  says '{"to": "https://example.org/hook"}: delivered' "$1/deferred"
  loop_says 'line: {"from": "stdin"}' "$1/loop"
  says 'Hello! Attempt 1 of job 1: {"name": "Ada"}' "$1/hello-cpp"
  unset GRAPHILE_WORKER_SCHEMA
}
if wanted examples; then
  step "the examples, found by pkg-config"
  mkdir -p "$build/examples"
  for example in hello deferred loop; do
    [ "$(wc -l <"$root/bindings/c/examples/$example.c")" -lt 60 ] || fail "$example.c has 60 lines or more"
    # shellcheck disable=SC2086
    $CC -std=gnu99 $strict -o "$build/examples/$example" "$root/bindings/c/examples/$example.c" $flags
  done
  # shellcheck disable=SC2086
  $CXX -std=c++17 $strict -o "$build/examples/hello-cpp" "$root/bindings/cpp/examples/hello.cpp" $flags
  run_examples "$build/examples"

  step "the examples, found by CMake, in a copy of the install in another folder"
  rm -rf "$build/cmake" "$build/moved"
  cp -RP "$prefix" "$build/moved"
  cmake -S "$root/bindings/c/tests/cmake" -B "$build/cmake" -DCMAKE_PREFIX_PATH="$build/moved" >"$build/cmake.log" ||
    { cat "$build/cmake.log"; fail "cmake failed"; }
  cmake --build "$build/cmake" >"$build/cmake.log" || { cat "$build/cmake.log"; fail "cmake --build failed"; }
  run_examples "$build/cmake"

  step "an example with the static library"
  # shellcheck disable=SC2046
  $CC -std=gnu99 -o "$build/hello-static" "$root/bindings/c/examples/hello.c" $(pkg-config --cflags graphile_worker) \
    "$(pkg-config --variable=static_library graphile_worker)" $(pkg-config --static --libs-only-l graphile_worker | sed 's/-lgraphile_worker//')
  mv "$build/moved" "$build/out-of-reach"
  for program in "$build/hello-static" "$build/cmake/hello-static"; do
    ! readelf -d "$program" | grep -q libgraphile_worker || fail "$program needs libgraphile_worker.so"
    says 'Hello! Attempt 1 of job 1: {"name": "Ada"}' "$program"
  done
  unset GRAPHILE_WORKER_SCHEMA
  rm -rf "$build/out-of-reach"
fi

# --- The same C tests with sanitizers and under valgrind. ---

export CHECK_SLOW=1

# Runs two halves of the tests in parallel, because such programs are slow and use one processor each.
in_halves() { # COMMAND...
  CHECK_PART=1/2 "$@" >"$build/half" 2>&1 &
  half=$!
  CHECK_PART=2/2 "$@" && other=0 || other=$?
  wait "$half" && first=0 || first=$?
  cat "$build/half"
  [ "$first$other" = 00 ] || fail "$* ended with $first and $other"
}

if wanted sanitizers; then
  step "the C tests with AddressSanitizer and UndefinedBehaviorSanitizer"
  build_c "$build/tests-asan" -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
  nm "$build/tests-asan" | grep -q __asan_init || fail "AddressSanitizer is not in the program"
  export CHECK_SCALE=0.2 CHECK_TIMEOUT=180 ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=0
  in_halves "$build/tests-asan"
  # These fork while other threads run, where AddressSanitizer's allocator could stay locked for ever.
  build_c "$build/tests-ubsan" -fsanitize=undefined -fno-sanitize-recover=all
  "$build/tests-ubsan" forked
fi

if wanted valgrind; then
  step "the C tests under valgrind"
  build_c "$build/tests"
  export CHECK_SCALE=0.03 CHECK_TIMEOUT=600
  # shellcheck disable=SC2086 # Several words.
  in_halves valgrind --quiet --trace-children=no --child-silent-after-fork=no --leak-check=full \
    --show-leak-kinds=definite --errors-for-leak-kinds=definite --error-exitcode=9 "$build/tests" ${VALGRIND_TESTS:-}
fi

if wanted adapters; then
  step "the adapters of the C and C++ APIs compile"
  # shellcheck disable=SC2086
  $CC -std=c11 $strict -o "$build/adapter-c" "$root/tests/conformance/adapter.c" $flags
  # shellcheck disable=SC2086
  $CXX -std=c++17 $strict -o "$build/adapter-cpp" "$root/tests/conformance/adapter.cpp" $flags
  for adapter in "$build/adapter-c" "$build/adapter-cpp"; do
    answer=$(printf 'nonsense\nquit\n' | "$adapter") || fail "$adapter ended with $?"
    [ "$answer" = "$(printf 'error\tGW_ERR_UNSUPPORTED\t-\tunknown command')" ] || fail "$adapter printed '$answer'"
  done
fi

printf '\n== all tests passed\n'
