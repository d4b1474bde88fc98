# atomicwriter: build, test and install. `make help` lists the targets.
#
# All products go below $(BUILD). A variant (another compiler, sanitizers,
# coverage) is this same Makefile with another BUILD and other flags.

# ---- settings ----------------------------------------------------------

BUILD       ?= build
PREFIX      ?= /usr/local
LIBDIR      ?= $(PREFIX)/lib
LUA_VERSION ?= 5.4
CFLAGS      ?= -O2 -g -D_FORTIFY_SOURCE=2 -fstack-protector-strong
LDFLAGS     ?= -Wl,-z,relro,-z,now
# LUA=luajit          build and test for this interpreter only; the default is
#                     Lua $(LUA_VERSION), and LuaJIT too where its headers are
# SPEC=spec/x_spec.lua FILTER=pattern    run one spec file, or matching tests
# WERROR=1            make warnings errors
# V=1                 show commands, and what the tests print

VERSION   := $(shell sed -n 's/^.define AW_VERSION_STRING "\(.*\)"/\1/p' csrc/atomicwriter.h)
SOVERSION := $(firstword $(subst ., ,$(VERSION)))

WARNINGS   := -Wall -Wextra -Wpedantic -Wshadow -Wconversion $(if $(WERROR),-Werror)
AW_CFLAGS   = -std=c11 -D_POSIX_C_SOURCE=200809L -pthread -fPIC -fvisibility=hidden \
              $(WARNINGS) -Icsrc $(CPPFLAGS) $(CFLAGS)
AW_LDFLAGS  = -pthread $(CFLAGS) $(LDFLAGS)

# A flavour is a Lua to build for, "lua5.4" or "luajit". It names the module's
# directory, the pkg-config file and, unless LUA says another, the interpreter.
luajit_include := $(or $(shell pkg-config --cflags-only-I luajit 2>/dev/null),\
                       $(addprefix -I,$(wildcard /usr/include/luajit-2.1)))
FLAVOURS := $(if $(LUA),$(if $(findstring luajit,$(notdir $(LUA))),luajit,lua$(LUA_VERSION)),\
                        lua$(LUA_VERSION) $(if $(luajit_include),luajit))
interpreter = $(or $(LUA),$(1))
include_of  = $(if $(LUA_INCDIR),-I$(LUA_INCDIR),$(if $(filter luajit,$(1)),\
                $(or $(luajit_include),$(error no LuaJIT headers: try `make deps-test`)),\
                $(or $(shell pkg-config --cflags-only-I $(1) 2>/dev/null),-I/usr/include/$(1))))
lua_api_of  = $(if $(filter luajit,$(1)),5.1,$(patsubst lua%,%,$(1)))

# ---- output ------------------------------------------------------------

MAKEFLAGS += -r --no-print-directory
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:

ifeq ($(filter-out 0,$(V)),)
Q   := @
say  = @printf '  %-5s %s\n' '$(1)' '$(or $(2),$@)'
else
export V
endif

# Make $@.NUMBER the target, unless it is the same: then nothing is rebuilt. Several makes may do that
# at once.
new = $@.$$$$
keep_if_same = cmp -s $(new) $@ && rm $(new) || mv $(new) $@

# ---- the library and the Lua modules -----------------------------------

CORE    := $(patsubst csrc/%.c,%,$(wildcard csrc/aw_*.c))
LIB     := $(BUILD)/libatomicwriter
SHARED  := $(LIB).so.$(VERSION)
MODULES := $(FLAVOURS:%=$(BUILD)/%/atomicwriter/core.so)

.PHONY: all
all: $(LIB).a $(LIB).so $(BUILD)/atomicwriter.pc $(MODULES) $(BUILD)/bin/atomicwriter ## build the libraries and the Lua modules (default)

.PHONY: modules luajit
modules: $(MODULES) ## build the Lua modules alone
luajit: ## build the module for LuaJIT alone
	@$(MAKE) LUA=luajit $(BUILD)/luajit/atomicwriter/core.so

# Objects depend on the flags that they were built with.
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(subst ','\'',$(CC) $(AW_CFLAGS) $(AW_LDFLAGS))' >$(new); $(keep_if_same)

$(BUILD)/obj/%.o: csrc/%.c $(BUILD)/flags
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(AW_CFLAGS) -MMD -MP -c -o $@ $<

# The specs' build of the core, in which system calls can be replaced.
$(BUILD)/obj-test/%.o: csrc/%.c $(BUILD)/flags
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(AW_CFLAGS) -DAW_TEST -MMD -MP -c -o $@ $<

$(LIB).a: $(CORE:%=$(BUILD)/obj/%.o)
$(LIB)-test.a: $(CORE:%=$(BUILD)/obj-test/%.o)
%.a:
	$(call say,AR)
	@mkdir -p $(@D); rm -f $@
	$(Q)$(AR) rcs $@ $^

$(SHARED): $(CORE:%=$(BUILD)/obj/%.o)
	$(call say,LD)
	$(Q)$(CC) -shared -Wl,-soname,libatomicwriter.so.$(SOVERSION) -Wl,-z,defs -o $@ $^ $(AW_LDFLAGS)

$(LIB).so: $(SHARED)
	@ln -sf $(<F) $(LIB).so.$(SOVERSION)
	@ln -sf $(<F) $@

# A module contains the core but exports nothing of it. It is never linked
# against liblua: these symbols come from the program that loads it.
$(BUILD)/%/lua_atomicwriter.o: csrc/lua_atomicwriter.c $(BUILD)/flags
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(AW_CFLAGS) $(patsubst -I%,-isystem %,$(call include_of,$*)) -MMD -MP -c -o $@ $<

$(BUILD)/%/atomicwriter/core.so: $(BUILD)/%/lua_atomicwriter.o $(LIB).a
	$(call say,LD)
	@mkdir -p $(@D)
	$(Q)$(CC) -shared -Wl,--exclude-libs,ALL -o $@ $^ $(AW_LDFLAGS)

$(BUILD)/atomicwriter.pc: csrc/atomicwriter.pc.in csrc/atomicwriter.h FORCE
	@mkdir -p $(@D)
	@sed 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(LIBDIR)|; s|@VERSION@|$(VERSION)|' $< >$(new); $(keep_if_same)

# The command, told where its modules are: in this tree, or below PREFIX.
make_command = path=$$(command -v '$(call interpreter,$(firstword $(FLAVOURS)))') || exit; \
    sed "1s|/.*|$$path|; \
    s|^local LUA_DIR, C_DIR$$|local LUA_DIR, C_DIR = '$(1)', '$(2)'|" lua/bin/atomicwriter >$(new); \
    chmod 755 $(new); $(keep_if_same)

$(BUILD)/bin/atomicwriter: lua/bin/atomicwriter $(firstword $(MODULES)) FORCE
	@mkdir -p $(@D)
	@$(call make_command,$(CURDIR)/lua,$(build_path)/$(firstword $(FLAVOURS)))

$(BUILD)/install/atomicwriter: lua/bin/atomicwriter FORCE
	@mkdir -p $(@D)
	@$(call make_command,$(call lua_dir,$(firstword $(FLAVOURS))),$(call so_dir,$(firstword $(FLAVOURS))))

# The manual and the completion are what the command says of itself.
CLI_FILES := $(shell find lua/atomicwriter/cli lua/atomicwriter/cli.lua -name '*.lua')
$(BUILD)/man/atomicwriter.1: $(CLI_FILES) csrc/atomicwriter.h
	$(call say,MAN)
	@mkdir -p $(@D)
	$(Q)$(call run_lua,$(firstword $(FLAVOURS))) -e \
	    'io.write(require("atomicwriter.cli.manual").text("$(VERSION)"))' >$@

$(BUILD)/completion/atomicwriter: $(CLI_FILES) $(BUILD)/bin/atomicwriter
	$(call say,BASH)
	@mkdir -p $(@D)
	$(Q)$(BUILD)/bin/atomicwriter completion bash >$@

.PHONY: FORCE
-include $(wildcard $(BUILD)/*/*.d $(BUILD)/spec/*/*.d)

# ---- running -----------------------------------------------------------

# The environment in which a flavour finds the modules of this tree, from any
# working directory, and then what the user's own LUA_PATH has.
build_path = $(if $(filter /%,$(BUILD)),,$(CURDIR)/)$(BUILD)
lua_env = env -u LUA_PATH_5_4 -u LUA_CPATH_5_4 ATOMICWRITER_BUILD="$(build_path)" \
    LUA_PATH="$(CURDIR)/lua/?.lua;$(CURDIR)/lua/?/init.lua;$${LUA_PATH:-;}" \
    LUA_CPATH="$(build_path)/$(1)/?.so;$${LUA_CPATH:-;}"
run_lua = $(call lua_env,$(1)) $(call interpreter,$(1))

DEPS := spec/support/deps.sh

.PHONY: deps deps-test deps-check
deps: ## install what building and running needs (Debian, Ubuntu)
	@$(DEPS) build $(if $(LUA),$(filter luajit,$(FLAVOURS)))
deps-test: ## install what the tests need, too
	@$(DEPS) build luajit test
deps-check: ## install what `make check`, doc and coverage need, too
	@$(DEPS) build luajit test check

# Make again, because what was just installed changes what can be built.
.PHONY: demo bench bench-results
demo: deps ## project payloads below build/demo, from Lua and by the command
	@$(MAKE) run-demo
bench: ## measure against plain C and what others do (minutes; ARGS=--quick for one)
	@$(DEPS) build bench
	@$(MAKE) run-bench
RESULTS := spec/bench/results
bench-results: ## measure all and put it into spec/bench/results, with plots
	@$(DEPS) build bench
	@$(MAKE) run-bench ARGS='--json $(RESULTS)/results.json --markdown $(RESULTS)/README.md \
	    --plots $(RESULTS) --command "make bench-results" $(ARGS)'

.PHONY: demo-nginx bench-nginx
demo-nginx: deps-test ## run a gateway in nginx and change its routes under load
	@$(MAKE) run-demo-nginx
bench-nginx: deps-test ## measure nginx under load while it is written to
	@$(MAKE) run-bench-nginx

.PHONY: bench-etcd
bench-etcd: deps-test ## measure publish to live on 200 watchers of one etcd (ARGS=)
	@$(MAKE) run-bench-etcd

.PHONY: run-demo run-bench run-demo-nginx run-bench-nginx run-bench-etcd
run-demo: $(firstword $(MODULES)) $(BUILD)/bin/atomicwriter
	@$(call run_lua,$(firstword $(FLAVOURS))) examples/podinfo/podinfo.lua
	@PATH="$(build_path)/bin:$$PATH" examples/tour/tour.sh $(BUILD)/demo/tour

BENCHES := $(BUILD)/spec/bench/floor $(BUILD)/spec/bench/copy \
           $(FLAVOURS:%=$(BUILD)/%/bench/heap.so)
run-bench: $(firstword $(MODULES)) $(BENCHES) $(BUILD)/bin/atomicwriter
	@$(call lua_env,$(firstword $(FLAVOURS))) spec/bench/run.sh \
	    $(call interpreter,$(firstword $(FLAVOURS))) spec/bench/bench.lua $(ARGS)
	$(if $(findstring --only,$(ARGS)),,$(bench_the_rest))

# What has nothing to do with writing: Penlight's templates, loading argparse.
define bench_the_rest
@$(call run_lua,$(firstword $(FLAVOURS))) spec/bench/template.lua
@$(call run_lua,$(firstword $(FLAVOURS))) spec/bench/startup.lua
endef

# ---- tests -------------------------------------------------------------

# A suite prints one line and says how many of its tests passed; `total` makes
# several targets, adds them up and prints the sum as its last line.
SUITES := spec/support/run_suites.sh
tests   = $(SUITES) tests '$(BUILD)/log/$(VARIANT)$@' '$(VARIANT:%-=%: )$(1)'
step    = $(SUITES) step '$(BUILD)/log/$@' '$(1)'

C_TESTS := $(patsubst spec/c/%.c,$(BUILD)/spec/c/%,$(wildcard spec/c/*_test.c))
C_RUNS   = $(C_TESTS)
# Fuzz targets, each of which runs its corpus here (see "fuzzing").
FUZZ_REPLAYS := $(patsubst spec/fuzz/%.c,$(BUILD)/spec/fuzz/%,\
                  $(filter-out %/fuzz.c %/replay.c %/script.c,$(wildcard spec/fuzz/*.c)))
C_RUNS  += $(foreach run,$(FUZZ_REPLAYS),'$(run) spec/fuzz/corpus/$(notdir $(run))')
C_KIT   := $(filter-out %_test,$(patsubst spec/c/%.c,%,$(wildcard spec/c/*.c)))
SPECS    = $(or $(SPEC),$(sort $(wildcard spec/*_spec.lua)))

# What the C tests share is an archive: each links what it uses.
$(BUILD)/spec/c/kit.a: $(C_KIT:%=$(BUILD)/spec/c/%.o)
$(BUILD)/spec/c/%.o: spec/c/%.c $(BUILD)/flags
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(AW_CFLAGS) -DAW_TEST -MMD -MP -c -o $@ $<

$(C_TESTS): %: %.o $(BUILD)/spec/c/kit.a $(LIB)-test.a
	$(call say,LD)
	$(Q)$(CC) -o $@ $(filter %.o %.a,$^) $(AW_LDFLAGS)

$(BUILD)/spec/bench/floor: $(wildcard spec/bench/floor/*.[ch]) $(BUILD)/flags
$(BUILD)/spec/bench/copy: spec/bench/copy.c $(BUILD)/flags
$(BUILD)/spec/bench/%:
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(AW_CFLAGS) -o $@ $(filter %.c,$^) $(AW_LDFLAGS)

$(BUILD)/%/bench/heap.so: spec/bench/heap.c $(BUILD)/flags
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(AW_CFLAGS) $(patsubst -I%,-isystem %,$(call include_of,$*)) -shared -o $@ $< $(AW_LDFLAGS)

# Who attacks, in the specs of faults.
FAULT_TOOLS := $(patsubst spec/faults/%.c,$(BUILD)/spec/faults/%,$(wildcard spec/faults/*.c))
$(FAULT_TOOLS): $(BUILD)/spec/faults/%: spec/faults/%.c $(BUILD)/flags
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(AW_CFLAGS) -MMD -MP -MF $@.d -o $@ $< $(AW_LDFLAGS)

# The power-cut model with one class of syncs left out: it must find that.
POWER_MUTANTS := $(addprefix $(BUILD)/spec/c/power_test-,no-file-sync no-directory-sync \
                   no-target-sync-before no-target-sync-after)
C_TESTS += $(if $(VARIANT),,$(POWER_MUTANTS)) # a sanitizer would find the same in each
$(POWER_MUTANTS): $(BUILD)/spec/c/power_test-%: spec/c/power_test.c spec/c/power.c \
                  $(BUILD)/spec/c/kit.a $(LIB)-test.a $(BUILD)/flags
	$(call say,CC)
	$(Q)$(CC) $(AW_CFLAGS) -DAW_TEST '-DPOWER_MUTANT="$*"' -MMD -MP -MF $@.d -o $@ \
	    $(filter %.c %.a,$^) $(AW_LDFLAGS)

TEST_FLAVOURS := $(if $(LUA),$(FLAVOURS),lua$(LUA_VERSION) luajit)
LUA_SUITES := $(TEST_FLAVOURS:%=test-%)
ALL_TESTS  = test-c $(firstword $(LUA_SUITES)) -- \
             $(etcd_suite) $(nginx_suite) $(wordlist 2,9,$(LUA_SUITES))
TESTS      = $(if $(SPEC)$(FILTER),$(LUA_SUITES),$(ALL_TESTS))

# What suites that run side by side must not build at the same time.
.PHONY: build-shared
build-shared: $(MODULES) $(LIB).a $(LIB).so $(C_TESTS) $(FUZZ_REPLAYS) $(FAULT_TOOLS) \
              $(BUILD)/bin/atomicwriter
	@:

.PHONY: test
test: deps-test ## install what is needed, build, run all tests (SPEC=, FILTER=)
	+@$(if $(SPEC)$(FILTER),,$(MAKE) -k build-shared || true)
	+@MAKE='$(MAKE)' $(SUITES) total $(TESTS)

.PHONY: test-c
test-c: $(C_TESTS) $(FUZZ_REPLAYS) ## run the C unit tests
	@$(call tests,C unit tests) $(SUITES) each $(if $(UNDER),$(UNDER) --) $(C_RUNS)

.PHONY: $(TEST_FLAVOURS:%=test-%)
$(TEST_FLAVOURS:%=test-%): test-%: $(BUILD)/%/atomicwriter/core.so $(LIB).so $(BUILD)/bin/atomicwriter
	@$(call tests,specs on $*) $(call lua_env,$*) $(UNDER) $(call interpreter,$*) \
	    spec/support/busted.lua --output=plainTerminal $(if $(FILTER),--filter="$$FILTER") $(SPECS)

# ---- nginx -------------------------------------------------------------

# Specs that start nginx, which loads the module for LuaJIT; so once, on one Lua,
# and only where nginx has Lua. Asked when `test` has installed what it can.
NGINX_LUA  := /usr/lib/nginx/modules/ngx_http_lua_module.so
nginx_suite = $(if $(filter luajit,$(TEST_FLAVOURS)),$(shell test ! -e $(NGINX_LUA) || echo test-nginx))
.PHONY: test-nginx
test-nginx: luajit $(BUILD)/lua$(LUA_VERSION)/atomicwriter/core.so ## run the specs inside nginx
	@$(call tests,specs in nginx) $(call run_lua,lua$(LUA_VERSION)) \
	    spec/support/busted.lua --output=plainTerminal $(if $(FILTER),--filter="$$FILTER") \
	    $(or $(SPEC),$(sort $(wildcard spec/nginx/*_spec.lua)))

# nginx takes its paths from the environment: Lua's, with ours before.
nginx_env = env LUA_PATH="$(CURDIR)/$(1)/?.lua;$(CURDIR)/lua/?.lua;/usr/share/lua/5.1/?.lua;;" \
    LUA_CPATH="$(build_path)/luajit/?.so;;"
run-demo-nginx: luajit $(BUILD)/bin/atomicwriter
	@PATH="$(build_path)/bin:$$PATH" $(call nginx_env,examples/nginx-gateway) \
	    lua$(LUA_VERSION) examples/nginx-gateway/demo.lua $(ARGS)
run-bench-nginx: luajit $(BUILD)/lua$(LUA_VERSION)/atomicwriter/core.so
	@$(call run_lua,lua$(LUA_VERSION)) spec/bench/nginx.lua $(ARGS)

# ---- etcd --------------------------------------------------------------

# Specs that start etcd, on loopback: once, on one Lua.
etcd_suite = $(if $(shell command -v etcd && command -v etcdctl),test-etcd,\
               $(info       skipped: specs with etcd \# etcd is not installed))
.PHONY: test-etcd
test-etcd: $(BUILD)/$(firstword $(FLAVOURS))/atomicwriter/core.so $(BUILD)/bin/atomicwriter ## run the specs with real etcd
	@$(call tests,specs with etcd) $(call run_lua,$(firstword $(FLAVOURS))) \
	    spec/support/busted.lua --output=plainTerminal $(if $(FILTER),--filter="$$FILTER") \
	    $(or $(SPEC),$(sort $(wildcard spec/etcd/*_spec.lua)))

run-bench-etcd: $(BUILD)/$(firstword $(FLAVOURS))/atomicwriter/core.so $(BUILD)/bin/atomicwriter
	@$(call run_lua,$(firstword $(FLAVOURS))) spec/bench/etcd.lua $(ARGS)

# ---- checks ------------------------------------------------------------

CHECKS := check-luacheck check-cppcheck check-layers check-gcc check-clang \
          check-valgrind-c check-valgrind-lua check-faults check-fuzz \
          check-install check-rock check-demo
CHECKS_BESIDE := check-asan-c check-asan-lua check-asan-luajit check-tsan

.PHONY: check
check: deps-check ## run lint, layers, sanitizers, valgrind and the packaging
	+@$(MAKE) -k build-shared || true
	+@MAKE='$(MAKE)' $(SUITES) total $(CHECKS) -- $(CHECKS_BESIDE)

.PHONY: check-lint check-asan check-valgrind
check-lint: check-luacheck check-cppcheck ## lint Lua and C
check-asan: check-asan-c check-asan-lua check-asan-luajit ## run the tests with AddressSanitizer and UBSan
check-valgrind: check-valgrind-c check-valgrind-lua ## run the C tests and some specs in valgrind

.PHONY: check-luacheck check-cppcheck check-layers
check-luacheck:
	@$(call step,luacheck) luacheck --no-color lua spec examples

check-cppcheck:
	@mkdir -p $(BUILD)/cppcheck
	@$(call step,cppcheck) cppcheck -q --std=c11 --library=posix --error-exitcode=1 --suppressions-list=.cppcheck \
	    --enable=warning,performance,portability --suppress=missingIncludeSystem \
	    --cppcheck-build-dir=$(BUILD)/cppcheck -j 2 -D__GNUC__=12 -Icsrc csrc

check-layers: $(CORE:%=$(BUILD)/obj/%.o) ## hold the order of the C files and the one door to the kernel
	@$(call step,layers) lua5.4 spec/support/check_layers.lua csrc $(BUILD)/obj

# Everything that is C, without a warning.
BUILD_ALL := $(LIB).a $(LIB).so $(MODULES) $(C_TESTS) $(BENCHES) $(FAULT_TOOLS) $(FUZZ_REPLAYS)
.PHONY: build-all check-gcc check-clang
build-all: $(BUILD_ALL)
check-gcc check-clang: check-%: ## build without warnings with gcc, clang
	@$(call step,built by $* without warnings) $(MAKE) BUILD=$(BUILD)/$* CC=$* WERROR=1 build-all

ASAN := $(MAKE) CC=gcc BUILD=$(BUILD)/asan VARIANT=asan- LDFLAGS= \
        CFLAGS='-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all'
export UBSAN_OPTIONS := print_stacktrace=1:halt_on_error=1

# lua5.4 is not instrumented, so the libraries come first by LD_PRELOAD; what
# else the specs start may leak as it likes.
PRELOAD = env LD_PRELOAD='$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)'
BINDING_SPECS := $(wildcard $(addprefix spec/,atomicwriter_spec.lua exactness_spec.lua gc_spec.lua))
.PHONY: check-asan-c check-asan-lua check-asan-luajit
check-asan-c:
	+@ASAN_OPTIONS=detect_leaks=1 $(ASAN) test-c
check-asan-lua:
	+@ASAN_OPTIONS=detect_leaks=0 $(ASAN) UNDER="$(PRELOAD)" test-lua$(LUA_VERSION)
check-asan-luajit:
	+@ASAN_OPTIONS=detect_leaks=0 $(ASAN) UNDER="$(PRELOAD)" SPEC='$(BINDING_SPECS)' test-luajit

# Those of the C tests that have threads, and fork while they run. Where it is allowed,
# memory is not laid out at random: some kernels do more of that than ThreadSanitizer can
# bear.
TSAN_TESTS = $(patsubst spec/c/%.c,%,$(shell grep -l 'pthread_create\|pthread_self' spec/c/*_test.c))
TSAN_UNDER = $(shell setarch -R true 2>/dev/null && echo setarch -R)
.PHONY: check-tsan
check-tsan: ## run the threaded C tests with ThreadSanitizer
	+@TSAN_OPTIONS='report_thread_leaks=0' \
	    $(MAKE) CC=gcc BUILD=$(BUILD)/tsan VARIANT=tsan- LDFLAGS= \
	    CFLAGS='-O1 -g -fno-omit-frame-pointer -fsanitize=thread' UNDER='$(TSAN_UNDER)' \
	    FUZZ_REPLAYS= C_TESTS='$(TSAN_TESTS:%=$(BUILD)/tsan/spec/c/%)' test-c

# valgrind sees what ASan cannot, uninitialised values, but takes ten times as
# long: of the fault runs some, of the specs those that reach every call of the
# binding. In C, leaks are for ASan: here a child killed on purpose would be one.
VALGRIND := valgrind -q --error-exitcode=99 --child-silent-after-fork=yes \
            --suppressions=spec/support/valgrind.supp
VALGRIND_C := $(filter-out %/fault_test %/power_test $(POWER_MUTANTS),$(C_TESTS)) \
              '$(BUILD)/spec/c/power_test found' \
              '$(BUILD)/spec/c/fault_test collecting' '$(BUILD)/spec/c/fault_test something'
.PHONY: check-valgrind-c check-valgrind-lua
check-valgrind-c:
	@$(MAKE) VARIANT=valgrind- UNDER='$(VALGRIND)' C_RUNS="$(VALGRIND_C)" test-c
check-valgrind-lua:
	@$(MAKE) VARIANT=valgrind- UNDER='env GC_ROUNDS=10 $(VALGRIND) --leak-check=full' \
	    SPEC='$(BINDING_SPECS)' test-lua$(LUA_VERSION)

# ---- faults ------------------------------------------------------------

# From outside: real processes are killed, raced, and given hostile targets and
# full disks. Minutes long, and they count points: once, on one Lua.
FAULT_SPECS := $(sort $(wildcard spec/faults/*_spec.lua))
.PHONY: check-faults
check-faults: $(BUILD)/lua$(LUA_VERSION)/atomicwriter/core.so $(BUILD)/bin/atomicwriter $(FAULT_TOOLS) ## kill, race and starve real processes
	@$(call tests,faults from outside) $(call run_lua,lua$(LUA_VERSION)) \
	    spec/support/busted.lua --output=plainTerminal $(if $(FILTER),--filter="$$FILTER") \
	    $(or $(SPEC),$(FAULT_SPECS))

# ---- fuzzing -----------------------------------------------------------

# Each spec/fuzz/NAME.c with a corpus is a target. Those in Lua share script.c, and
# need the static counters of libFuzzer; so they are built by clang alone, and run on
# their corpora by spec/corpus_spec.lua.
FUZZ_NAMES   := $(sort $(notdir $(wildcard spec/fuzz/corpus/*)))
FUZZ_IN_C    := $(filter $(patsubst spec/fuzz/%.c,%,$(wildcard spec/fuzz/*.c)),$(FUZZ_NAMES))
FUZZ_IN_LUA  := $(filter-out $(FUZZ_IN_C),$(FUZZ_NAMES))
FUZZ_SECONDS ?= 60

$(BUILD)/spec/fuzz/%.o: spec/fuzz/%.c $(BUILD)/flags
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(AW_CFLAGS) -DAW_TEST -MMD -MP -c -o $@ $<

$(BUILD)/spec/fuzz/script-%.o: spec/fuzz/script.c $(BUILD)/flags
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(AW_CFLAGS) $(patsubst -I%,-isystem %,$(call include_of,lua$(LUA_VERSION))) \
	    -DFUZZ_SCRIPT='"$*"' -MMD -MP -c -o $@ $<

# Without libFuzzer: each target runs its corpus, as one of the C tests.
$(FUZZ_REPLAYS): %: %.o $(BUILD)/spec/fuzz/fuzz.o $(BUILD)/spec/fuzz/replay.o $(LIB)-test.a
	$(call say,LD)
	$(Q)$(CC) -o $@ $(filter %.o %.a,$^) $(AW_LDFLAGS)

$(FUZZ_IN_C:%=$(BUILD)/bin/%): $(BUILD)/bin/%: $(BUILD)/spec/fuzz/%.o $(BUILD)/spec/fuzz/fuzz.o $(LIB)-test.a
	$(call say,LD)
	@mkdir -p $(@D)
	$(Q)$(CC) -fsanitize=fuzzer -o $@ $(filter %.o %.a,$^) $(AW_LDFLAGS)

$(FUZZ_IN_LUA:%=$(BUILD)/bin/%): $(BUILD)/bin/%: $(BUILD)/spec/fuzz/script-%.o
	$(call say,LD)
	@mkdir -p $(@D)
	$(Q)$(CC) -fsanitize=fuzzer -o $@ $^ $(AW_LDFLAGS) $(shell pkg-config --libs lua$(LUA_VERSION))

.PHONY: fuzz check-fuzz fuzz-targets
fuzz-targets: $(FUZZ_NAMES:%=$(BUILD)/bin/%)
fuzzers = $(MAKE) CC=clang BUILD=$(BUILD)/fuzz LDFLAGS= \
          CFLAGS='-O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all' fuzz-targets
# TARGETS='path name' are some of them
TARGETS ?= $(FUZZ_NAMES)

fuzz: ## look for inputs that break something (FUZZ_SECONDS=60 each, TARGETS=)
	+@$(fuzzers)
	@spec/fuzz/run.sh $(FUZZ_SECONDS) $(BUILD)/fuzz $(TARGETS)

check-fuzz: ## the same for 5 seconds each
	+@$(call step,fuzz targets built) $(fuzzers)
	@FUZZ_FRESH=1 $(call tests,fuzzing) spec/fuzz/run.sh 5 $(BUILD)/fuzz $(TARGETS)

# Power cuts on real file systems, which take a quarter of an hour and root: apart
# from `make check`.
.PHONY: check-power run-check-power
check-power: ## pull the plug on ext4, xfs and btrfs, as root (minutes; ARGS=)
	@$(DEPS) build test power
	@$(MAKE) run-check-power

$(BUILD)/spec/faults/power/blocklog: spec/faults/power/blocklog.c $(BUILD)/flags
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(AW_CFLAGS) $(patsubst -I%,-isystem %,$(shell pkg-config --cflags fuse3)) \
	    -o $@ $< $(AW_LDFLAGS) $(shell pkg-config --libs fuse3)

run-check-power: $(BUILD)/lua$(LUA_VERSION)/atomicwriter/core.so $(BUILD)/spec/faults/power/blocklog
	@$(call lua_env,lua$(LUA_VERSION)) spec/faults/power/contained.sh \
	    $(call interpreter,lua$(LUA_VERSION)) spec/faults/power/power.lua $(ARGS)

# ---- checks of what is installed ---------------------------------------

.PHONY: check-install check-demo check-rock
check-install: all ## install into build/stage, use it from C and Lua, uninstall
	+@MAKE='$(MAKE)' $(call step,install and uninstall) spec/support/check_install.sh '$(BUILD)/stage'

check-demo:
	@$(call step,make demo) $(MAKE) demo

check-rock:
	@$(call step,rock) $(MAKE) rock

# ---- packaging ---------------------------------------------------------

# Where the modules of the flavour $(1) go; LuaRocks has its own places.
lua_dir = $(or $(INST_LUADIR),$(PREFIX)/share/lua/$(lua_api_of))
so_dir  = $(or $(INST_LIBDIR),$(PREFIX)/lib/lua/$(lua_api_of))
bin_dir = $(or $(INST_BINDIR),$(PREFIX)/bin)
doc_dir = $(PREFIX)/share/doc/atomicwriter

LUA_FILES := $(patsubst lua/%,%,$(sort $(shell find lua -name '*.lua')))
# nginx has LuaJIT only.
lua_files_of = $(if $(filter luajit,$(1)),$(LUA_FILES),$(filter-out resty/%,$(LUA_FILES)))
DOC_FILES := $(wildcard README.md CHANGELOG.md LICENSE) $(sort $(shell find examples -type f ! -perm -100))
DOC_PROGRAMS := $(sort $(shell find examples -type f -perm -100))

# put and drop: MODE, source directory, FILES in it, destination
define put
	@for f in $(3); do install -D -m $(1) "$(2)/$$f" "$(DESTDIR)$(4)/$$f" || exit; done

endef
define drop
	@for f in $(3); do rm -f "$(DESTDIR)$(4)/$$f"; done
	@cd "$(DESTDIR)$(4)" 2>/dev/null || exit 0; for d in $(filter-out ./,$(dir $(3))); do \
	    test ! -d $$d || rmdir -p --ignore-fail-on-non-empty $$d; done

endef

# What is installed: $(call …,put) or $(call …,drop).
define lua_files
$(foreach f,$(FLAVOURS),$(call $(1),644,lua,$(call lua_files_of,$(f)),$(call lua_dir,$(f)))\
$(call $(1),755,$(BUILD)/$(f),atomicwriter/core.so,$(call so_dir,$(f))))\
$(call $(1),755,$(if $(INST_BINDIR),lua/bin,$(BUILD)/install),atomicwriter,$(bin_dir))
endef
define c_files
$(call $(1),644,$(BUILD)/man,atomicwriter.1,$(PREFIX)/share/man/man1)\
$(call $(1),644,$(BUILD)/completion,atomicwriter,$(PREFIX)/share/bash-completion/completions)\
$(call $(1),644,csrc,atomicwriter.h,$(PREFIX)/include)\
$(call $(1),644,$(BUILD),libatomicwriter.a,$(LIBDIR))\
$(call $(1),755,$(BUILD),$(notdir $(SHARED)),$(LIBDIR))\
$(call $(1),644,$(BUILD),atomicwriter.pc,$(LIBDIR)/pkgconfig)\
$(call $(1),644,.,$(DOC_FILES),$(doc_dir))\
$(call $(1),755,.,$(DOC_PROGRAMS),$(doc_dir))
endef
SONAMES = libatomicwriter.so.$(SOVERSION) libatomicwriter.so

.PHONY: install install-lua uninstall
install: all install-lua $(BUILD)/man/atomicwriter.1 $(BUILD)/completion/atomicwriter ## install below PREFIX (/usr/local), in DESTDIR if given
	$(call c_files,put)
	@for f in $(SONAMES); do ln -sf $(notdir $(SHARED)) "$(DESTDIR)$(LIBDIR)/$$f"; done
	@test -n "$(DESTDIR)" || ldconfig 2>/dev/null || true # a plain user has no ldconfig to run

install-lua: $(MODULES) $(BUILD)/install/atomicwriter ## install the Lua modules and the command alone
	$(call lua_files,put)

uninstall: ## remove exactly what install put there
	$(call lua_files,drop)
	$(call c_files,drop)
	@for f in $(SONAMES); do rm -f "$(DESTDIR)$(LIBDIR)/$$f"; done
	@test ! -d "$(DESTDIR)$(doc_dir)" || rmdir --ignore-fail-on-non-empty "$(DESTDIR)$(doc_dir)"

.PHONY: rock
rock: ## build the rock offline into build/rock and load it from there
	+@spec/support/check_rock.sh $(BUILD)/rock $(LUA_VERSION)

.PHONY: doc coverage
doc: ## write the Lua reference to build/doc
	@ldoc -q -c .ldoc -d $(BUILD)/doc .

# Some specs run as a plain user, who must be able to add to the counts: so one
# spec makes their files first. A test build and the module share the sources.
COVERAGE := $(MAKE) BUILD=$(BUILD)/coverage CFLAGS='-O0 -g --coverage'
coverage: ## measure which lines of the C core the tests reach, tell why the others are not
	@mkdir -p $(BUILD)/coverage
	@find $(BUILD)/coverage -name '*.gcda' -delete
	@$(COVERAGE) SPEC=spec/globals_spec.lua test-lua$(LUA_VERSION) >/dev/null
	@chmod -R a+rwX $(BUILD)/coverage
	@$(COVERAGE) test-c
	@$(COVERAGE) test-lua$(LUA_VERSION)
	@gcovr --root . --filter csrc/ $(BUILD)/coverage \
	    --json $(BUILD)/coverage/lines.json --html-details $(BUILD)/coverage/index.html
	@lua$(LUA_VERSION) spec/support/uncovered.lua $(BUILD)/coverage/lines.json 95

# ---- the rest ----------------------------------------------------------

.PHONY: clean help
clean: ## remove everything that was built
	rm -rf $(BUILD)

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
