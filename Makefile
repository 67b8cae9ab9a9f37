# Every recipe does its own set-up on a Debian, Ubuntu or macOS machine with Rust and a C compiler.
.DEFAULT_GOAL := help
.PHONY: help demo test test-interop bench

# Which peers `make test-interop` runs against.
PEERS ?= node rust

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## start a private PostgreSQL and watch a worker at work
	@sh tests/setup.sh postgres
	cargo run --locked --release --example demo

test: ## check the code, run every test, build the documentation
	@sh tests/setup.sh postgres
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo test --locked
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps

test-interop: ## run side by side with the peers, all or PEERS=node
	@sh tests/setup.sh postgres node
	PEERS="$(PEERS)" bash tests/interop/run.sh

bench: ## measure throughput and latency on a private PostgreSQL
	@sh tests/setup.sh postgres
	cargo bench --locked
