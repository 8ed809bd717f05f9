# Two commands matter: `make demo` shows what Welkin does, `make test` proves it.
# Both install, or name, exactly what they need: see scripts/prerequisites.

export PATH := $(PATH):$(HOME)/.cargo/bin
SEED ?= $(shell git rev-parse --short=8 HEAD 2>/dev/null || echo 1)
SECONDS_OF_SWARM ?= 60

.PHONY: all build demo test check unit end-to-end upgrade guest swarm bench install clean

all: build

build:
	scripts/prerequisites build
	cargo build --release --locked -p welkin -p lab

demo:
	scripts/prerequisites demo
	cargo build --release --locked -p welkin -p lab
	scripts/demo

# Everything that must be green, in the order in which it fails fastest.
test:
	scripts/prerequisites test
	$(MAKE) check
	$(MAKE) unit
	$(MAKE) swarm
	$(MAKE) end-to-end

check:
	cargo fmt --all -- --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --workspace --no-deps --document-private-items --locked --quiet

unit:
	cargo test --workspace --exclude end-to-end --locked

# Whole kernels under random faults; the seed is the commit's own, and a failing one replays.
swarm:
	cargo run --release --locked --quiet -p xtask -- sim --seconds $(SECONDS_OF_SWARM) --seed 0x$(SEED) --all

end-to-end:
	cargo build --release --locked -p welkin -p lab
	cargo test --release --locked -p end-to-end -- --test-threads 1

# One node after the other gets this program instead of the one of the last release (PREVIOUS).
PREVIOUS ?= dd7d1a1
upgrade: build
	rm -rf target/previous && mkdir -p target/previous
	git archive $(PREVIOUS) | tar -x -C target/previous
	cd target/previous && CARGO_TARGET_DIR=target cargo build --release --locked -p welkin
	WELKIN_PREVIOUS=$(CURDIR)/target/previous/target/release/welkin cargo test --release --locked -p end-to-end --test upgrade

# In an emulated machine with systemd and nothing but control groups v2 (root).
guest: build
	scripts/prerequisites guest
	scripts/guest

bench:
	scripts/prerequisites bench
	cargo build --release --locked -p welkin -p lab
	cargo xtask bench

# The completion files call the program by the name by which it was called to make them.
SHARE = $(DESTDIR)/usr/local/share
BY_NAME = env PATH="$(CURDIR)/target/release:$(PATH)" welkin

install: build
	install -D -m 755 target/release/welkin $(DESTDIR)/usr/local/bin/welkin
	install -D -m 644 packaging/welkin.service $(DESTDIR)/etc/systemd/system/welkin.service
	target/release/welkin man --dir $(SHARE)/man/man1 >/dev/null
	mkdir -p $(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions $(SHARE)/fish/vendor_completions.d
	$(BY_NAME) completion bash >$(SHARE)/bash-completion/completions/welkin
	$(BY_NAME) completion zsh >$(SHARE)/zsh/site-functions/_welkin
	$(BY_NAME) completion fish >$(SHARE)/fish/vendor_completions.d/welkin.fish

clean:
	cargo clean
