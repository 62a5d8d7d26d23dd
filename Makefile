# The commands of this project. Each does its own set-up: missing Debian packages and tools are installed when run as root,
# else the message says what to install. `make` alone lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run test check bench soak fmt clean-var

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-10s %s\n", $$1, $$2 }'

run: ## build, import the sample course, start edge, learning and two collaboration nodes (PROFILE=release for speed)
	@scripts/setup.sh run
	@scripts/run.sh

test: ## every test: Rust, fuzzing for 30 s, conformance, end to end
	@scripts/setup.sh test
	@scripts/test.sh

check: ## format, clippy, docs, spelling, licences and versions, unused dependencies
	@scripts/setup.sh check
	@scripts/check.sh

bench: ## processor time per request beside nginx, HAProxy and Varnish (release build, takes minutes)
	@scripts/setup.sh bench
	@cargo build --release --locked --bin eduham-edge
	@python3 benches/compare.py

soak: ## 10,000 WebSocket upgrades in a row and side by side, a class on a cold object, 100,000 reads beside 1,000 purges, 200 kills of a disk tier, ten minutes of everything at once, ten minutes of fuzzing
	@scripts/setup.sh test
	@scripts/soak.sh

fmt: ## format the Rust code
	@cargo fmt --all

clean-var: ## forget what `make run` has stored: databases, uploads, logs
	@rm -rf var
