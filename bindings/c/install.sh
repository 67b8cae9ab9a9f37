#!/bin/sh
# Installs libgraphile_worker for C and C++ programs, as built by `cargo build --release`:
#   sh bindings/c/install.sh PREFIX
# Environment, all optional: DESTDIR (a prefix for every path, for packages), LIBDIR (below PREFIX, default lib),
# TARGET (the folder with the built libraries, default target/release), STATIC_LIBS (the libraries that the archive needs;
# `cargo rustc --release --lib --crate-type staticlib -- --print native-static-libs` prints them for your toolchain).
# The installed folder can be moved as a whole: pkg-config and CMake find all files relative to their own.
set -eu

if [ $# -ne 1 ]; then
  echo "usage: sh bindings/c/install.sh PREFIX" >&2
  exit 2
fi
prefix=${DESTDIR:-}$1
libdir=${LIBDIR:-lib}
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${TARGET:-${CARGO_TARGET_DIR:-$root/target}/release}

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml" | head -n 1)
abi=$(sed -n 's/^#define GW_ABI_VERSION \([0-9]*\).*/\1/p' "$root/include/graphile_worker.h")
if [ -z "$version" ] || [ -z "$abi" ]; then
  echo "install.sh: no version in Cargo.toml, or no GW_ABI_VERSION in include/graphile_worker.h" >&2
  exit 1
fi

case $(uname -s) in
  Darwin)
    built=libgraphile_worker.dylib
    plain=libgraphile_worker.dylib
    soname=libgraphile_worker.$abi.dylib
    shared=libgraphile_worker.$version.dylib
    static_libs=${STATIC_LIBS:--framework Security -framework CoreFoundation -framework SystemConfiguration -liconv -lm}
    ;;
  *)
    built=libgraphile_worker.so
    plain=libgraphile_worker.so
    soname=libgraphile_worker.so.$abi
    shared=libgraphile_worker.so.$version
    static_libs=${STATIC_LIBS:--lgcc_s -lutil -lrt -lpthread -lm -ldl -lc}
    ;;
esac
for file in "$built" libgraphile_worker.a; do
  if [ ! -f "$target/$file" ]; then
    echo "install.sh: $target/$file is missing; build it with: cargo build --release --locked" >&2
    exit 1
  fi
done

# The relative path from a folder below the prefix to the prefix: ../.. for lib/pkgconfig.
up() { printf '%s' "$1" | sed 's,[^/][^/]*,..,g'; }

# Copies to a new file and renames it, so that running programs keep the old library.
put() { # MODE FROM TO
  cp "$2" "$3.new"
  chmod "$1" "$3.new"
  mv -f "$3.new" "$3"
}

# Fills in a template. In CMake's list, `-framework Name` stays one item.
fill() { # TEMPLATE TO
  sed -e "s|@VERSION@|$version|g" -e "s|@ABI_VERSION@|$abi|g" -e "s|@LIBDIR@|$libdir|g" \
    -e "s|@PKGCONFIG_TO_PREFIX@|$(up "$libdir/pkgconfig")|g" \
    -e "s|@CMAKE_TO_PREFIX@|$(up "$libdir/cmake/graphile_worker")|g" \
    -e "s|@SHARED_FILE@|$shared|g" -e "s|@SONAME@|$soname|g" -e "s|@STATIC_LIBS@|$static_libs|g" \
    -e "s|@STATIC_LIBS_LIST@|$(printf '%s' "$static_libs" | sed 's/ -/;-/g')|g" "$1" >"$2.new"
  chmod 644 "$2.new"
  mv -f "$2.new" "$2"
}

lib=$prefix/$libdir
mkdir -p "$prefix/include" "$lib/pkgconfig" "$lib/cmake/graphile_worker"
put 644 "$root/include/graphile_worker.h" "$prefix/include/graphile_worker.h"
put 644 "$root/include/graphile_worker.hpp" "$prefix/include/graphile_worker.hpp"
put 755 "$target/$built" "$lib/$shared"
if [ "$(uname -s)" = Darwin ]; then
  install_name_tool -id "@rpath/$soname" "$lib/$shared"
fi
ln -sfn "$shared" "$lib/$soname"
ln -sfn "$soname" "$lib/$plain"
put 644 "$target/libgraphile_worker.a" "$lib/libgraphile_worker.a"
fill "$here/graphile_worker.pc.in" "$lib/pkgconfig/graphile_worker.pc"
fill "$here/graphile_worker-config.cmake.in" "$lib/cmake/graphile_worker/graphile_worker-config.cmake"
fill "$here/graphile_worker-config-version.cmake.in" "$lib/cmake/graphile_worker/graphile_worker-config-version.cmake"
echo "libgraphile_worker $version is installed below $prefix"
