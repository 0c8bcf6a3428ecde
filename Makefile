# Custode. `make help` lists the targets.
GO          ?= go
STATICCHECK ?= $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2
SUITE       ?= all
QUICK       ?=
VERSION     := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS     := -X main.version=$(VERSION)
export CGO_ENABLED = 1

.PHONY: help deps build demo test check lint bench e2e fuzz clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' Makefile

deps: ## install the Debian and npm packages the tests need (only what is missing)
	@./.ci/deps

build: ## build bin/custode and bin/simlab
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

demo: ## start the appliance with simulated hardware and a demo service provider; Ctrl-C ends it
	@./.ci/deps demo
	@$(MAKE) --no-print-directory build
	@bin/simlab demo --custode bin/custode

test: deps build ## run all tests, race detector on
	$(GO) test -race -timeout 30m ./...

lint: ## gofmt, go vet, staticcheck, go.mod tidiness
	@bad=$$(gofmt -l $$($(GO) list -f '{{.Dir}}' ./...)); test -z "$$bad" || { echo "not formatted: $$bad"; exit 1; }
	$(GO) vet ./...
	$(STATICCHECK) ./...
	$(GO) mod tidy -diff

check: lint test ## what CI runs: the linters and all tests

e2e: deps build ## the whole-product tests only, verbose
	$(GO) test -race -count=1 -timeout 30m -v ./internal/e2e/...

bench: build ## benchmarks; SUITE=login, modem, registry, certlog, hsm or otp for one suite, QUICK=1 for a run under 50 s
	@./.ci/deps bench
	@mkdir -p bench
	@bin/simlab bench --custode bin/custode --suite '$(SUITE)' $(if $(QUICK),--quick) --out bench/latest.txt

fuzz: ## each fuzzer for FUZZTIME (default 2m)
	@for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
	    echo "== $$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $${FUZZTIME:-2m} $$p || exit 1; \
	  done; done

clean: ## remove what the other targets built
	rm -rf bin bench
