#!/bin/sh
# Builds the robots of the languages that cargo knows nothing of: sh tests/doors/build.sh [c cpp python go]
#   GRAPHILE_WORKER_PREFIX  where the library is installed
#   GRAPHILE_WORKER_DOORS   where the robots go; target/doors if not set
set -eu
cd "$(dirname "$0")/../.."

prefix=${GRAPHILE_WORKER_PREFIX:?is not set: name the folder of an install, as \`make stage\` makes one}
doors=${GRAPHILE_WORKER_DOORS:-target/doors}
export PKG_CONFIG_PATH="$prefix/lib/pkgconfig"
mkdir -p "$doors"

flags() { pkg-config --cflags --libs graphile_worker; }

for language in ${*:-c cpp python go}; do
  case $language in
    c)
      # shellcheck disable=SC2046 # several flags
      ${CC:-cc} -std=c11 -o "$doors/robot-c" tests/doors/robot.c $(flags) -lpthread -Wl,-rpath,"$prefix/lib"
      ;;
    cpp)
      # shellcheck disable=SC2046
      ${CXX:-c++} -std=c++17 -Iinclude -o "$doors/robot-cpp" tests/doors/robot.cpp $(flags) -lpthread -Wl,-rpath,"$prefix/lib"
      ;;
    python)
      library=$prefix/lib/libgraphile_worker.so
      [ "$(uname -s)" != Darwin ] || library=$prefix/lib/libgraphile_worker.dylib
      cat >"$doors/robot-python" <<END
#!/bin/sh
export PYTHONPATH="$PWD/bindings/python/src" GRAPHILE_WORKER_LIBRARY="$library"
exec "${PYTHON:-python3}" "$PWD/tests/doors/robot.py" "\$@"
END
      chmod +x "$doors/robot-python"
      ;;
    go)
      # The folder of the robot is a module of its own, so the path of what it builds is made absolute.
      output=$(cd "$doors" && pwd)/robot-go
      (cd tests/doors/robot && CGO_LDFLAGS="-Wl,-rpath,$prefix/lib" go build -o "$output" .)
      ;;
    *)
      echo "$0: knows no $language" >&2
      exit 1
      ;;
  esac
  echo "$doors/robot-$language"
done
