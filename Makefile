# `make demo` shows ukc at work, `make test` is what CI runs, `make bench` measures. Packages that are missing are installed with apt-get, which says so.
CARGO ?= cargo
PACKAGES = gcc libc6-dev musl-tools busybox-static golang-go e2fsprogs strace curl python3-minimal qemu-system-x86 ovmf docker-registry apache2-utils openssl skopeo git

.PHONY: all demo test lint unit guest bench corpus packages clean
all:
	$(CARGO) build --release --locked -p ukc

# A Debian-based Dockerfile becomes a machine that answers over HTTP.
demo:
	fixtures/demo/run

# Everything that must hold: style, unit and property tests, golden cases, guest tests, the demonstration.
test: packages lint unit guest
	fixtures/demo/run $(or $(CARGO_TARGET_DIR),target)/debug/ukc

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --locked --workspace --no-deps --quiet

# The guest tests have a target of their own, so that their output stands last.
unit:
	$(CARGO) test --locked --workspace --exclude golden-guest

guest:
	$(CARGO) test --locked -p golden-guest

# About ten minutes; `make bench QUICK=1` takes two. golden-tests/bench/src/main.rs has more knobs.
bench: packages
	fixtures/install-packages wrk iproute2
	$(CARGO) run --release --locked -p golden-bench

# Asks buildah about every Dockerfile of fixtures/corpus, also about those that need package registries.
corpus: packages
	fixtures/install-packages buildah
	UKC_CORPUS=ask $(CARGO) test --locked -p golden-corpus --test corpus

packages:
	fixtures/install-packages $(PACKAGES)

clean:
	$(CARGO) clean
