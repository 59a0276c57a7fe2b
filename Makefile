# slicewire: `make demo` shows it, `make test` checks it. `make help` lists the rest.

GO       ?= go
BIN      := bin/slicewire
PKGS     := ./...
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X main.version=$(VERSION)
FUZZTIME ?= 50000x
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
PEERS    := .cache/peers/bin
RESULTS  ?= .cache/peers/results

# Where the sources are.
FOLDERS := api cmd metrics overlay show simulate statedir netstack gateway router shaper dnsd kube deploy bench

# What bench-micro runs: the packages on a packet's way.
MICRO     := ./router ./shaper ./gateway ./netstack ./netstack/segment ./dnsd
BENCH     ?= .
BENCHTIME ?= 0.5s

# How often bench-failover tries each failure.
TRIALS ?= 30

# The size of bench-mesh's meshes: time and memory grow with the square of it.
MEMBERS ?= 300
STALLED ?= 10m

# A user without a home directory (nobody, a CI container) still builds: the
# caches then live inside the checkout.
writable = $(shell d="$$($(GO) env $(1) 2>/dev/null)"; [ -n "$$d" ] && mkdir -p "$$d" 2>/dev/null && [ -w "$$d" ] && echo yes)
ifneq ($(call writable,GOCACHE),yes)
export GOCACHE := $(CURDIR)/.cache/build
endif
ifneq ($(call writable,GOMODCACHE),yes)
export GOMODCACHE := $(CURDIR)/.cache/mod
export GOFLAGS := $(GOFLAGS) -modcacherw
endif

SOURCES := $(shell find api show simulate statedir cmd overlay netstack gateway router shaper dnsd metrics kube deploy bench/lab -name '*.go' -not -name '*_test.go' 2>/dev/null) \
           $(shell find cmd -path '*/demodata/*' -type f 2>/dev/null) go.mod go.sum

.PHONY: help build demo test prerequisites lint fuzz bench bench-quick bench-stress bench-qos bench-micro bench-failover bench-dns bench-mesh matrix peers kubernetes image clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

build: $(BIN) ## make bin/slicewire, one static binary

$(BIN): $(SOURCES)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./cmd/slicewire

demo: build ## three sites on this machine, no root; ONCE=1 checks itself and ends
	@$(BIN) demo $(if $(ONCE),--once)

test: prerequisites ## everything CI needs to know
	$(GO) vet $(PKGS)
	$(GO) test -run Alloc $(PKGS) # without the race detector, which allocates itself
	$(GO) test ./bench/lab # nor does it take meshes of this size
	$(GO) test -run 'LeavesTheAnswers|IsWithdrawn|OutliveTheDeath|AChangeAmong|KeysOfASlice|AThousandExports' ./cmd/slicewire ./kube/cluster # nor does it keep to such times
	$(GO) -C kube/testcluster vet ./...
	$(GO) -C kube/testcluster test .
	$(GO) test -parallel 2 -timeout 30m ./kube/e2e # its programs are not built with the race detector anyway
	CGO_ENABLED=1 $(GO) test -race -p 2 -timeout 40m $(shell $(GO) list ./... 2>/dev/null | grep -v -e /kube/e2e$$ -e /cmd/slicewire$$)
	CGO_ENABLED=1 $(GO) test -race -timeout 40m ./cmd/slicewire # alone: many tests start real processes, which have time limits

kubernetes: ## build the Kubernetes that tests run, once (11 minutes of CPU; kept in the user's cache)
	@$(GO) -C kube/testcluster run . build

image: build ## bin/slicewire.tar, an image of the program, for docker, podman and containerd
	@$(GO) run ./deploy/mkimage -program $(BIN) -version $(VERSION) -o bin/slicewire.tar

prerequisites: ## install what the tests use (as root; otherwise only say what is missing)
	@tools/prerequisites

lint: ## static checks
	$(GO) run $(GOLANGCI) run
	cd kube/testcluster && $(GO) run $(GOLANGCI) run
	@test -z "$$(gofmt -l $(FOLDERS))" || { gofmt -l $(FOLDERS); exit 1; }

matrix: ## only the isolation matrix, which is among the tests too (a minute; CELL=packets of a cell)
	CGO_ENABLED=1 $(GO) test -race -count=1 -timeout 40m -v -run TestIsolationMatrix ./cmd/slicewire -matrix-cell $(or $(CELL),1000)

fuzz: ## every fuzz target for FUZZTIME, a time or a number of inputs
	@tools/fuzz $(FUZZTIME)

bench: peers ## slicewire beside its peers, into bench/results (as root; 40 minutes, at most 55)
	@$(PEERS)/peers

bench-quick: peers ## the headline ratios (three minutes, after the peers are built once)
	@$(PEERS)/peers -quick -results "$(RESULTS)"

bench-stress: prerequisites build ## slicewire overloaded, and over ways narrower than they look (as root; four minutes)
	@mkdir -p $(PEERS)
	@$(GO) build -o $(PEERS)/peers ./bench/peers
	@$(PEERS)/peers -stress all -results "$(RESULTS)"

bench-qos: prerequisites build ## shaping beside the kernel's htb and tbf (as root; five minutes)
	@mkdir -p $(PEERS)
	@$(GO) build -o $(PEERS)/peers ./bench/peers
	@$(PEERS)/peers -qos -results "$(RESULTS)"

bench-micro: ## ns, bytes and allocations of each step of a packet's way (a minute; BENCH=regexp, BENCHTIME=1s)
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -benchtime $(BENCHTIME) $(MICRO)

bench-failover: ## what a gateway's failure costs, 30 trials each (12 minutes; TRIALS=n; WIRE=1 as root: over a bad link; FAILURE=kill)
	@mkdir -p .cache
	@$(GO) test -count=1 -timeout 60m -v -run '$(if $(WIRE),FailuresOverAWire,FailuresOnLoopback)/$(FAILURE)' ./cmd/slicewire \
		-failover-trials $(TRIALS) > .cache/failover.log; code=$$?; grep 'trials:\|^---\|^FAIL' .cache/failover.log; exit $$code

bench-dns: ## the name server beside CoreDNS and dnsmasq, with dnsperf (three minutes, after CoreDNS is built once; as root to install)
	@mkdir -p $(PEERS)
	@bench/dns/install $(PEERS)
	@$(GO) build -o $(PEERS)/bench-dns ./bench/dns
	@$(PEERS)/bench-dns -bin $(PEERS)

bench-mesh: ## how news spreads and who is taken for dead in a mesh of MEMBERS, in virtual time (500: 3 GB)
	$(GO) test -count=1 -timeout 10h -v -run 'LargeMesh|MuchToSay' ./bench/lab -members $(MEMBERS) -stalled $(STALLED)

peers: build
	@bench/peers/install $(PEERS)
	@$(GO) build -o $(PEERS)/peers ./bench/peers

clean: ## remove what was built
	rm -rf bin .cache
