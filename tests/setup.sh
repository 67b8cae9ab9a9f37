#!/bin/sh
# Installs the tools that the recipes of the Makefile need:
#   sh tests/setup.sh [postgres] [pgbouncer] [c] [python] [go] [node] [typos] [deny]
# Installs missing tools if this needs no password (as root, or with a sudo that asks for none).
# Otherwise prints the command that installs them and exits 1.
set -eu

say() { printf '%s\n' "$*" >&2; }

if ! command -v cargo >/dev/null 2>&1; then
  say "cargo is missing; install Rust with: curl https://sh.rustup.rs -sSf | sh"
  exit 1
fi
if ! command -v cc >/dev/null 2>&1; then
  say "a C compiler is missing; install it with: apt-get install build-essential (macOS: xcode-select --install)"
  exit 1
fi

# Whether a complete PostgreSQL server is installed. Searches the same folders as src/devdb.rs.
has_postgres() {
  IFS_BEFORE=$IFS
  IFS=:
  for folder in $PATH; do
    if whole_server "$folder"; then IFS=$IFS_BEFORE; return 0; fi
  done
  IFS=$IFS_BEFORE
  if command -v pg_config >/dev/null 2>&1 && whole_server "$(pg_config --bindir)"; then return 0; fi
  for folder in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin \
    /usr/local/opt/postgresql*/bin /Applications/Postgres.app/Contents/Versions/*/bin; do
    if whole_server "$folder"; then return 0; fi
  done
  return 1
}
whole_server() {
  [ -x "$1/initdb" ] && [ -x "$1/pg_ctl" ] && [ -x "$1/postgres" ]
}

# Debian installs it in /usr/sbin, which is only in root's PATH.
has_pgbouncer() { command -v pgbouncer >/dev/null 2>&1 || [ -x /usr/sbin/pgbouncer ]; }
has_node() { command -v node >/dev/null 2>&1 && command -v npm >/dev/null 2>&1; }
has_python() { python3 -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 9))' >/dev/null 2>&1; }
# The tools that the tests of the C API need in addition to a C compiler.
has_c() {
  for tool in c++ pkg-config cmake; do command -v "$tool" >/dev/null 2>&1 || return 1; done
  # valgrind does not exist for macOS.
  [ "$(uname -s)" != Linux ] || command -v valgrind >/dev/null 2>&1
}
has_go() { command -v go >/dev/null 2>&1; }
has_typos() { command -v typos >/dev/null 2>&1; }
has_deny() { command -v cargo-deny >/dev/null 2>&1; }

# The name of a package that cargo builds and puts into the user's own folder, which needs no rights.
crate() {
  case $1 in
    typos) echo typos-cli ;;
    deny) echo cargo-deny ;;
  esac
}

# Prints the package names of a tool for this package manager.
package() {
  case $manager:$1 in
    apt:postgres) echo postgresql ;;
    apt:node) echo nodejs npm ;;
    apt:c) echo g++ pkg-config cmake valgrind ;;
    apt:python) echo python3 python3-venv ;;
    apt:go) echo golang-go ;;
    *:pgbouncer) echo pgbouncer ;;
    brew:postgres) echo postgresql@16 ;;
    brew:c) echo pkg-config cmake ;;
    brew:*) echo "$1" ;;
    dnf:postgres) echo postgresql-server ;;
    dnf:node) echo nodejs npm ;;
    dnf:c) echo gcc-c++ pkgconf-pkg-config cmake valgrind ;;
    dnf:python) echo python3 ;;
    dnf:go) echo golang ;;
  esac
}

if command -v apt-get >/dev/null 2>&1; then
  manager=apt install='apt-get install -y'
elif command -v dnf >/dev/null 2>&1; then
  manager=dnf install='dnf install -y'
elif command -v brew >/dev/null 2>&1; then
  manager=brew install='brew install'
else
  manager=none install=
fi

# Runs a command as root, if this needs no password.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  else
    sudo -n "$@"
  fi
}
may_install() {
  case $manager in
    brew) [ "$(id -u)" != 0 ] ;; # Homebrew refuses to run as root, and needs no password for other users.
    none) return 1 ;;
    *) [ "$(id -u)" = 0 ] || { command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; } ;;
  esac
}

install_packages() {
  case $manager in
    apt)
      # Debian's package would create and start a system-wide server. The tests start their own.
      as_root mkdir -p /etc/postgresql-common
      conf=/etc/postgresql-common/createcluster.conf
      if ! grep -qs '^create_main_cluster' "$conf"; then
        echo 'create_main_cluster = false' | as_root tee -a "$conf" >/dev/null
      fi
      as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q
      # The conf file above already exists when the package is installed: keep it without asking.
      as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends \
        -o Dpkg::Options::=--force-confold "$@"
      ;;
    dnf) as_root dnf install -qy "$@" ;;
    brew) HOMEBREW_NO_AUTO_UPDATE=1 brew install --quiet "$@" ;;
  esac
}

missing=
crates=
for need in "$@"; do
  case $need in
    postgres | pgbouncer | c | node | python | go | typos | deny) ;;
    *)
      say "setup.sh: unknown tool '$need' (known: postgres, pgbouncer, c, python, go, node, typos, deny)"
      exit 2
      ;;
  esac
  if "has_$need"; then continue; fi
  if [ -n "$(crate "$need")" ]; then crates="$crates $need"; else missing="$missing $need"; fi
done

for need in $crates; do
  say "installing $(crate "$need") with cargo"
  cargo install --locked --quiet "$(crate "$need")"
  if ! "has_$need"; then
    say "$need is still missing after: cargo install --locked $(crate "$need"); is ${CARGO_HOME:-$HOME/.cargo}/bin in PATH?"
    exit 1
  fi
done
if [ -z "$missing" ]; then exit 0; fi

if [ "$manager" = none ]; then
  say "missing on this machine:$missing; install it and run this again"
  exit 1
fi
packages=
for need in $missing; do packages="$packages $(package "$need")"; done
if ! may_install; then
  sudo=
  if [ "$manager" != brew ] && [ "$(id -u)" != 0 ]; then sudo='sudo '; fi
  say "missing on this machine:$missing; install it with: $sudo$install$packages"
  exit 1
fi
say "installing$packages"
# shellcheck disable=SC2086 # $packages is a list of words
install_packages $packages
for need in $missing; do
  if ! "has_$need"; then
    say "$need is still missing after: $install$packages"
    exit 1
  fi
done
