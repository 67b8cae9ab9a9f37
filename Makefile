# Every recipe installs what it needs on a Debian, Ubuntu or macOS machine with Rust and a C compiler.
.DEFAULT_GOAL := help
.PHONY: help demo demo-languages test test-all test-rust test-bindings test-c test-python test-go test-table test-interop \
	programs lint suite check bench library header install stage

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
# The benches that `make bench` runs; all if empty, which takes more than an hour. Two of them need more than Rust and
# PostgreSQL: `languages` an installation of the library for C, Python and Go, `peers` the peers from their registries.
BENCH ?=
has_bench = $(if $(BENCH),$(filter $(1),$(BENCH)),all)

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

# This leaves out what changes with the compiler and not with the code: optimized code, its speed and its size. The
# sanitizers run all C tests. Valgrind runs only those of handles, in which memory changes hands. `make test-all` runs all
# C tests under valgrind, and without a tool. Two suites run at a time, which is enough for two cores.
test: ## check the code, run the tests of all languages, build the documentation
	@sh tests/setup.sh postgres pgbouncer c python go
	$(MAKE) lint
	$(MAKE) BUILD_LIBRARY="cargo build --locked --lib" BUILT=$(TARGET)/debug SHORTER="$(SHORT)" $(LANES) suite test-bindings

SHORT := ONLY='header symbols cpp examples sanitizers valgrind adapters' VALGRIND_TESTS=handles.c MAX_SIZE=33554432
LANES := -j2 $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)
# More threads than processors, because the tests mostly wait.
test-all test suite test-table: export RUST_TEST_THREADS ?= $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))
test-all test suite test-c test-python test-go test-table test-interop: export TMPDIR := $(shell sh tests/tmpdir.sh)
TIMED := @sh tests/timed.sh

test-all: lint suite test-bindings test-interop ## every test: all C tests under valgrind, the size of the library, every peer

test-rust: lint suite ## the part of `make test` that needs only Rust and PostgreSQL

# Apart from the lints: an older compiler runs the tests, but formats and warns differently.
suite: ## the tests in Rust, without the lints
	@sh tests/setup.sh postgres pgbouncer
	$(TIMED) cargo test --locked --no-run
	$(TIMED) cargo test --locked

lint: ## format, clippy, documentation of the Rust code
	@sh tests/setup.sh
	cargo fmt --check
	$(TIMED) cargo clippy --locked --all-targets --features header -- -D warnings
	$(TIMED) env RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps

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

test-bindings: test-c test-python test-go test-table ## the part of `make test` for C, C++, Python and Go

# What the tests of the other languages run.
programs: stage
	@sh tests/setup.sh postgres c python go
	$(TIMED) cargo build --locked --bins --examples

test-c: programs ## the tests of the C and C++ APIs
	$(TIMED) env $(SHORTER) sh bindings/c/test.sh

test-python: programs ## the tests of the Python package
	$(TIMED) sh bindings/python/test.sh

test-go: programs ## the tests of the Go package
	$(TIMED) sh bindings/go/test.sh

test-table: programs ## the conformance cases in C, C++, Python and Go
	$(TIMED) sh tests/conformance/build.sh
	$(TIMED) cargo test --locked --test it conformance -- --include-ignored --skip conformance::rust

# How `make library` builds, and where cargo puts the result.
BUILD_LIBRARY = cargo rustc --locked --profile library --lib --no-default-features --features capi --crate-type cdylib,staticlib
BUILT = $(TARGET)/library

library: ## build the shared and the static library, in target/library
	@sh tests/setup.sh
	$(TIMED) $(BUILD_LIBRARY)

header: ## generate include/graphile_worker.h
	GW_BLESS_HEADER=1 cargo check --locked --features header

install: library ## install header, libraries, pkg-config and CMake files to PREFIX=/usr/local
	TARGET=$(BUILT) sh bindings/c/install.sh "$(PREFIX)"

stage: library
	@TARGET=$(BUILT) sh bindings/c/install.sh "$(STAGE)"

test-interop: ## run side by side with the peers, all or PEERS=node
	@sh tests/setup.sh postgres node
	PEERS="$(PEERS)" bash tests/interop/run.sh

bench: $(if $(call has_bench,languages),stage) ## measure throughput and latency on a private PostgreSQL, all or BENCH=peers
	@sh tests/setup.sh postgres $(if $(call has_bench,languages),c python go) $(if $(call has_bench,peers),python go node)
	$(if $(call has_bench,languages),sh benches/languages/build.sh)
	$(if $(call has_bench,peers),sh benches/peers/build.sh)
	cargo bench --locked $(addprefix --bench ,$(BENCH))
