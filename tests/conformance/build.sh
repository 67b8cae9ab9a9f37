#!/bin/sh
# Builds the adapters that cargo does not build: sh tests/conformance/build.sh [c cpp python go]
#   GRAPHILE_WORKER_PREFIX    the folder in which the library is installed
#   GRAPHILE_WORKER_ADAPTERS  the folder for the adapters; target/adapters if not set
set -eu
cd "$(dirname "$0")/../.."

prefix=${GRAPHILE_WORKER_PREFIX:?is not set: set it to the folder of an installation, for example of \`make stage\`}
adapters=${GRAPHILE_WORKER_ADAPTERS:-target/adapters}
export PKG_CONFIG_PATH="$prefix/lib/pkgconfig"
mkdir -p "$adapters"

flags() { pkg-config --cflags --libs graphile_worker; }

for language in ${*:-c cpp python go}; do
  case $language in
    c)
      # shellcheck disable=SC2046 # several flags
      ${CC:-cc} -std=c11 -o "$adapters/adapter-c" tests/conformance/adapter.c $(flags) -lpthread -Wl,-rpath,"$prefix/lib"
      ;;
    cpp)
      # shellcheck disable=SC2046
      ${CXX:-c++} -std=c++17 -Iinclude -o "$adapters/adapter-cpp" tests/conformance/adapter.cpp $(flags) -lpthread -Wl,-rpath,"$prefix/lib"
      ;;
    python)
      library=$prefix/lib/libgraphile_worker.so
      [ "$(uname -s)" != Darwin ] || library=$prefix/lib/libgraphile_worker.dylib
      cat >"$adapters/adapter-python" <<END
#!/bin/sh
export PYTHONPATH="$PWD/bindings/python/src" GRAPHILE_WORKER_LIBRARY="$library"
exec "${PYTHON:-python3}" "$PWD/tests/conformance/adapter.py" "\$@"
END
      chmod +x "$adapters/adapter-python"
      ;;
    go)
      # go must run in the folder of the adapter, which is a separate module, so the output path must be absolute.
      output=$(cd "$adapters" && pwd)/adapter-go
      (cd tests/conformance/adapter && CGO_LDFLAGS="-Wl,-rpath,$prefix/lib" go build -o "$output" .)
      ;;
    *)
      echo "$0: unknown language $language" >&2
      exit 1
      ;;
  esac
  echo "$adapters/adapter-$language"
done
