# ringhub's one Makefile. `make help` lists the targets, V=1 shows the commands.
#
# Sources are found by folder; objects go to build/$(VARIANT)/; -MMD keeps dependencies. A variant
# (release, asan, tsan, debug, fuzz) is the same tree under other flags, and its tests are the same
# tests. The goal chooses it: `make asan` is `make test VARIANT=asan`.

VARIANT ?= $(or $(patsubst ubsan,asan,$(firstword $(filter asan ubsan tsan fuzz,$(MAKECMDGOALS)))),release)
B       := build/$(VARIANT)
PREFIX  ?= /usr/local

ifeq ($(origin CC),default)
CC      := gcc
endif
ifeq ($(VARIANT),fuzz)
CC      := clang
endif

CFLAGS_release := -O2 -g -flto=auto -ffat-lto-objects
CFLAGS_debug   := -O0 -g
CFLAGS_asan    := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -DRH_NO_JEMALLOC
CFLAGS_tsan    := -O1 -g -fsanitize=thread -fno-omit-frame-pointer -DRH_NO_JEMALLOC
CFLAGS_fuzz    := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -DRH_NO_JEMALLOC

MALLOC_release := -ljemalloc
MALLOC_debug   := -ljemalloc

WARN    := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
           -Wvla -Wundef -Wno-unused-parameter
CPPFLAGS += -I. -D_GNU_SOURCE
CFLAGS  += -std=c11 -fno-strict-aliasing $(WARN) $(CFLAGS_$(VARIANT))
LDFLAGS += $(filter -fsanitize%,$(CFLAGS_$(VARIANT)))

# The programs are optimised as a whole when they are linked: a fifth less of our own CPU time a
# message. Objects hold both forms, so tests and embedders link them as usual, and quickly.
LTO_release := -O2 -g -flto=auto
NOLTO       := $(if $(LTO_$(VARIANT)),-fno-lto)
LDLIBS  := -luring -lck -lyaml -lcrypto -lz -lpthread $(MALLOC_$(VARIANT)) -lm

# As many jobs as cores, unless the caller says -j. A line per step; V=1 shows the command instead.
MAKEFLAGS += -j$(shell nproc)
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' '$(1)' '$(2)')

LIB_SRC   := $(wildcard core/*.c proto/*.c shard/*.c store/*.c)
LIB_OBJ   := $(LIB_SRC:%.c=$(B)/%.o)
LIB       := $(B)/libringhub.a
LOAD_OBJ  := $(patsubst %.c,$(B)/%.o,$(wildcard tools/load/*.c))
TEST_SRC  := $(wildcard $(addsuffix /test_*.c,$(addprefix tests/,core proto shard store race)))
SIM_SRC   := $(wildcard tests/sim/*.c)
TEST_BIN  := $(TEST_SRC:%.c=$(B)/%) $(if $(SIM_SRC),$(B)/tests/sim/sim)
PEER_OBJ  := $(patsubst %.c,$(B)/%.o,$(wildcard bench/peers/*.c) tools/load/payload.c tools/load/proc.c)
BENCH_BIN := $(patsubst %.c,$(B)/%,$(wildcard bench/bench_*.c))
FUZZ_BIN  := $(patsubst %.c,$(B)/%,$(wildcard tests/fuzz/fuzz_*.c))
FZ_SRC    := tests/fuzz/fuzz_conn.c $(wildcard tests/fuzz/fz_*.c)
DISK_OBJ  := $(patsubst %.c,$(B)/%.o,$(wildcard tests/store/disk*.c))
DISK_BIN  := $(patsubst %.c,$(B)/%,$(shell grep -ls '"tests/store/disk.h"' $(TEST_SRC) $(wildcard tests/fuzz/fuzz_*.c)))
PROGRAMS  := ringhubd ringhub-bench ringhub-journal
C_FILES   := $(wildcard *.[ch] $(addsuffix /*.[ch],core proto shard store tools tools/load bench bench/* tests \
                         tests/*))

.DEFAULT_GOAL := all
.SECONDARY:
.DELETE_ON_ERROR:
.PHONY: all run test sim asan ubsan tsan crash fuzz bench peers check layers format-check tidy fmt deps install \
        clean help FORCE

# ---- what one does ------------------------------------------------------------------------------

all: $(PROGRAMS:%=$(B)/%) ## build the library, the daemon and the tools (installs nothing)

run: all ## install what is missing, build, and start the hub with its defaults
	$(Q)exec $(B)/ringhubd

test: all $(TEST_BIN) ## run every test; T=text only those whose name contains it
	$(Q)VARIANT=$(VARIANT) tests/run.sh $(TEST_BIN)

sim: $(filter %/sim,$(TEST_BIN)) ## run the simulation alone; SEED=1 RUNS=1000
	$(Q)SEED='$(SEED)' RUNS='$(RUNS)' $<

asan: test ## the tests under AddressSanitizer and UndefinedBehaviorSanitizer
ubsan: test ## the same as asan: both sanitizers live in one build
tsan: test ## the tests under ThreadSanitizer

crash: all ## kill the hub ROUNDS=20 times under load, and check that nothing promised is lost; SEED=1
	$(Q)VARIANT=$(VARIANT) tests/crash/crash.py --verbose --rounds $(or $(ROUNDS),20) $(if $(SEED),--seed $(SEED))

fuzz: TIME ?= 60
fuzz: $(if $(F),$(filter %/fuzz_$(F),$(FUZZ_BIN)),$(FUZZ_BIN)) ## fuzz each target for TIME=60 seconds; F=ws only that one
	$(Q)for program in $(or $^,$(error no tests/fuzz/fuzz_$(F).c)); do \
	    tests/fuzz/run.sh $$program $(TIME) || exit 1; done

bench: all $(if $(F),$(filter %/bench_$(F),$(BENCH_BIN)),$(BENCH_BIN)) ## run the micro-benchmarks; F=ring only that one
	$(Q)for program in $(or $(filter $(B)/bench/%,$^),$(error no bench/bench_$(F).c)); do \
	    echo "== $$program"; $$program || exit 1; done

peers: all $(B)/bench/peers/peer_load ## measure ringhub beside nchan, mosquitto, NATS, ws, Socket.IO; ARGS=--quick
	$(Q)bench/peers/run.py $(ARGS)

check: layers format-check tidy test ## all of these, before a review

layers: ## prove that includes go the one way that STYLE allows
	$(Q)tools/check_layers.sh

format-check: ## fail where clang-format would change something
	$(Q)clang-format --dry-run -Werror $(C_FILES)

tidy: ## static analysis of what is shipped: clang-tidy and cppcheck, warnings are errors
	$(Q)tools/tidy.sh $(filter-out tests/% bench/%,$(filter %.c,$(C_FILES)))

fmt: ## clang-format all sources
	$(Q)clang-format -i $(C_FILES)

install: all ## install programs, library and header; PREFIX=/usr/local DESTDIR=
	install -d $(addprefix $(DESTDIR)$(PREFIX)/,bin lib include)
	install $(PROGRAMS:%=$(B)/%) $(DESTDIR)$(PREFIX)/bin
	install -m 644 $(LIB) $(DESTDIR)$(PREFIX)/lib
	install -m 644 core/ringhub.h $(DESTDIR)$(PREFIX)/include

clean: ## remove build/
	rm -rf build

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1 \t\2/p' Makefile | expand -t 22

# ---- packages -----------------------------------------------------------------------------------
# Plain `make` installs nothing; a goal that may need packages has `deps` done before anything else.

wants = $(if $(filter $(1),$(MAKECMDGOALS)),$(2))
DEPS := $(or $(call wants,check fuzz tidy format-check fmt,check),$(call \
        wants,test asan ubsan tsan sim crash bench,test),build)
GATE := $(call wants,run test asan ubsan tsan sim crash check bench peers fuzz tidy format-check fmt,deps)

deps: ## install what the build needs of Debian's packages; DEPS=test, DEPS=check for more
	$(Q)tools/deps.sh $(DEPS)

tidy format-check fmt: | $(GATE)

# ---- how things are built -----------------------------------------------------------------------

$(LIB): $(LIB_OBJ) $(B)/sources
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $(LIB_OBJ)

$(B)/ringhubd: $(B)/tools/ringhubd.o $(LIB)
$(B)/ringhub-bench: $(LOAD_OBJ) $(LIB)
$(B)/ringhub-journal: $(B)/tools/journal.o $(LIB)

$(PROGRAMS:%=$(B)/%):
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) $(LTO_$(VARIANT)) -o $@ $^ $(LDLIBS)
	$(Q)$(if $(filter release,$(VARIANT)),ln -sf release/$(@F) build/$(@F))

# The simulation has its own seam (and main): its objects come first, so the library's stay out.
$(B)/tests/sim/sim: $(SIM_SRC:%.c=$(B)/%.o) $(DISK_OBJ) $(LIB)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) $(NOLTO) -o $@ $^ $(LDLIBS)

# In the shards the fuzzer sees which way was taken, not what was compared: twice as fast.
NO_CMP_fuzz := -fno-sanitize-coverage=trace-cmp
$(B)/shard/%.o: CFLAGS += $(NO_CMP_$(VARIANT))

# fuzz_conn has its own seam, too; of its code the fuzzer sees nothing.
UNSEEN_fuzz := -fno-sanitize=fuzzer-no-link
$(FZ_SRC:%.c=$(B)/%.o) $(DISK_OBJ): CFLAGS += $(UNSEEN_$(VARIANT))

$(B)/tests/fuzz/fuzz_conn: $(FZ_SRC:%.c=$(B)/%.o) $(DISK_OBJ) $(LIB)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(LDLIBS)

# A program that includes tests/store/disk.h has the disk in memory in place of core/file.
$(DISK_BIN): $(DISK_OBJ)
objects_first = $(filter %.o,$^) $(filter %.a,$^)

$(B)/tests/fuzz/%: $(B)/tests/fuzz/%.o $(LIB)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -fsanitize=fuzzer -o $@ $(objects_first) -ljansson $(LDLIBS)

$(B)/tests/%: $(B)/tests/%.o $(B)/tests/rh_test.o $(LIB)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) $(NOLTO) -o $@ $(objects_first) -lcheck -lsubunit -ljansson $(LDLIBS)

$(B)/bench/peers/peer_load: $(PEER_OBJ) $(LIB)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) $(LTO_$(VARIANT)) -o $@ $^ $(LDLIBS)

$(B)/bench/%: $(B)/bench/%.o $(LIB)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) $(LTO_$(VARIANT)) -o $@ $^ -ljansson $(LDLIBS)

$(B)/%.o: %.c $(B)/flags
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D) && $(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# Stamps: a change of the flags, or of the list of sources, rebuilds what depends on it.
$(B)/flags: NOW = $(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) $(LDLIBS)
$(B)/sources: NOW = $(LIB_SRC)
$(B)/flags $(B)/sources: FORCE | $(GATE)
	@mkdir -p $(@D) && echo '$(NOW)' | cmp -s - $@ || { $(PROBE) && echo '$(NOW)' >$@; }

# Asked when the flags are new: are the outside libraries' headers here at all?
HEADERS := liburing.h ck_ring.h yaml.h openssl/evp.h zlib.h $(if $(MALLOC_$(VARIANT)),jemalloc/jemalloc.h)
PROBE = { printf '\043include <%s>\n' $(HEADERS) | $(CC) $(CPPFLAGS) -E - >/dev/null || \
        { echo 'A compiler or a library is missing: run "make deps".' >&2; exit 1; }; }

-include $(shell find $(B) -name '*.d' 2>/dev/null)
