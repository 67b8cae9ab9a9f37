# Every recipe installs what it needs on a Debian, Ubuntu or macOS machine with Rust and a C compiler.
.DEFAULT_GOAL := help
.PHONY: help demo demo-languages test test-all test-rust test-bindings test-interop lint suite check bench library header \
	install stage

TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
# The folder in which tests and demos find the header and the libraries, laid out as `make install` does.
STAGE := $(TARGET)/stage
PREFIX ?= /usr/local
# Variables that the tests of the other languages read.
export GRAPHILE_WORKER_PREFIX := $(STAGE)
export GRAPHILE_WORKER_BIN := $(TARGET)/debug/graphile-worker
export GRAPHILE_WORKER_ADAPTERS := $(TARGET)/adapters

# The peers that `make test-interop` runs against.
PEERS ?= node rust
# The benches that `make bench` runs; all if empty.
BENCH ?=

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## start a private PostgreSQL and run a worker on it
	@sh tests/setup.sh postgres
	cargo run --locked --release --example demo

demo-languages: stage ## run workers in Rust, C, Python, Go and Node on one queue
	@sh tests/setup.sh postgres c python go node
	cargo build --locked --examples
	sh tests/conformance/build.sh
	cd tests/interop && npm ci --silent
	$(TARGET)/debug/examples/languages

# This leaves out what changes with the compiler and not with the code: the size after link-time optimization. Valgrind runs
# the C tests of handles, pulled jobs and events only, in which memory changes hands; AddressSanitizer runs all of them.
test: PROFILE := staged
test: SHORTER := VALGRIND_TESTS='handles.c pull.c events.c' MAX_SIZE=16777216
test: test-rust test-bindings ## check the code, run the tests of all languages, build the documentation

test-all: test-rust test-bindings test-interop ## every test: all C tests under valgrind, the size of the library, every peer

test-rust: lint suite ## the part of `make test` that needs only Rust and PostgreSQL

# Apart from the lints: an older compiler runs the tests, but formats and warns differently.
suite: ## the tests in Rust, without the lints
	@sh tests/setup.sh postgres pgbouncer
	cargo test --locked

lint: ## format, clippy, documentation of the Rust code
	@sh tests/setup.sh
	cargo fmt --check
	cargo clippy --locked --all-targets --features header -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps

# Only the lints and the links are also in `make test`: dictionaries, licences and advisories change while the code does
# not, and a test must not fail for that reason. Without a network there is no advisory database, and that check is left
# out. Where CI is set it must not be.
check: lint ## lint, spelling, links, licences and advisories of the dependencies
	@sh tests/setup.sh typos deny
	typos
	cargo test --locked --test links
	cargo deny --locked check bans licenses sources
	@if cargo deny --locked fetch db; then \
	  cargo deny --locked check advisories; \
	elif [ -z "$${CI:-}" ]; then \
	  echo 'make check: advisories are not checked, because their database cannot be fetched' >&2; \
	else \
	  echo 'make check: the advisory database cannot be fetched' >&2; exit 1; \
	fi

test-bindings: stage ## the part of `make test` for C, C++, Python and Go
	@sh tests/setup.sh postgres c python go
	cargo build --locked --bins --examples
	$(SHORTER) sh bindings/c/test.sh
	sh bindings/python/test.sh
	sh bindings/go/test.sh
	sh tests/conformance/build.sh
	cargo test --locked --test it conformance -- --include-ignored --skip conformance::rust

# Which profile of cargo `make library` builds with.
PROFILE = library

library: ## build the shared and the static library, in target/library
	@sh tests/setup.sh
	cargo rustc --locked --profile $(PROFILE) --lib --no-default-features --features capi --crate-type cdylib,staticlib

header: ## generate include/graphile_worker.h
	GW_BLESS_HEADER=1 cargo check --locked --features header

install: library ## install header, libraries, pkg-config and CMake files to PREFIX=/usr/local
	TARGET=$(TARGET)/library sh bindings/c/install.sh "$(PREFIX)"

stage: library
	@TARGET=$(TARGET)/$(PROFILE) sh bindings/c/install.sh "$(STAGE)"

test-interop: ## run side by side with the peers, all or PEERS=node
	@sh tests/setup.sh postgres node
	PEERS="$(PEERS)" bash tests/interop/run.sh

bench: stage ## measure throughput and latency on a private PostgreSQL, all or BENCH=languages
	@sh tests/setup.sh postgres c python go
	sh benches/languages/build.sh
	cargo bench --locked $(addprefix --bench ,$(BENCH))
