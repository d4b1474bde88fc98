#!/bin/bash
# Run test suites and count honestly: a crash, a time-out, a missing count and
# an empty suite are failures, whatever else was printed.
#
#   run_suites.sh tests LOG LABEL COMMAND…   one suite; prints one line, and the
#                                            whole log when something failed
#   run_suites.sh step LOG LABEL COMMAND…    the same for a command that has no
#                                            count: it passes or fails as one
#   run_suites.sh each [PREFIX… --] PROGRAM… run each ("PROGRAM ARGUMENT" too), add
#                                            up their counts
#   run_suites.sh total TARGET… [-- TARGET…] make each target in turn and add up the suites
#                                            that it ran; what is after -- runs beside the
#                                            rest, where there are two processors
#
# A count is a line "N passed, N failed[, N skipped]" or busted's summary; the
# last one in a log holds. Where it says nothing of skipped tests, the lines
# "ok - … # skipped: …" are taken from those that passed. `total` tells suites with SUITE_RESULTS where to
# leave theirs.
set -u

limit=${TEST_TIMEOUT:-900}

# Print "passed failed skipped" from the last count in the file $1.
counts() {
    awk '/^ok - .* # skipped: / { marked++ }
         /^[0-9]+ passed, [0-9]+ failed$/ { found = 1; p = $1 - marked; f = $3; s = marked + 0 }
         /^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$/ { found = 1; p = $1; f = $3; s = $5 }
         /^[0-9]+ success(es)? \/ [0-9]+ failures? \/ [0-9]+ errors? \/ [0-9]+ pending/ {
             found = 1; p = $1; f = $4 + $7; s = $10 }
         END { if (found) print p, f, s }' "$1"
}

# Set passed, failed, skipped, reason from the log $1 and the exit status $2.
judge() {
    reason=
    passed=0 failed=0 skipped=0
    local found
    found=$(counts "$1")
    test -z "$found" || read -r passed failed skipped <<<"$found"
    if test "$2" = 124 || test "$2" = 137; then
        reason="killed after $limit s"
    elif test -z "$found"; then
        reason="exit status $2 and no count"
    elif test $((passed + failed + skipped)) = 0; then
        reason="no test was run"
    elif test "$2" != 0 && test "$failed" = 0; then
        reason="exit status $2"
    fi
    test -z "$reason" || failed=$((failed + 1))
}

sum() {
    printf '%d passed, %d failed' "$1" "$2"
    test "$3" = 0 || printf ', %d skipped' "$3"
}

# Run a command with a time limit, its output in the log $1.
logged() {
    local log=$1
    shift
    if test -n "${V:-}"; then
        timeout --foreground -k 10 "$limit" "$@" 2>&1 | tee "$log"
        return "${PIPESTATUS[0]}"
    fi
    timeout --foreground -k 10 "$limit" "$@" >"$log" 2>&1
}

# What was skipped and why, from the log $1.
skips() {
    awk '/^ok - .* # skipped: / { sub(/^ok - /, ""); sub(/ # skipped: /, " # "); print "      skipped: " $0 }
         /^Pending -> /  { getline name; getline why; print "      skipped: " name " # " why }' "$1"
}

# Tell of a suite, and of no other meanwhile: $1 log, $2 label, $3 how it ended.
report() {
    local mark=ok
    test -z "${SUITE_LOCK:-}" || { exec {lock}<"$SUITE_LOCK"; flock "$lock"; }
    test "$failed" = 0 || mark=FAIL
    if test $mark = FAIL && test -z "${V:-}"; then
        sed 's/^/    /' "$1"
    fi
    printf '%-4s  %-34s  %s  (%d s)\n' $mark "$2" "$3${reason:+: $reason}" $SECONDS
    test "$skipped" = 0 || test $mark = FAIL || skips "$1"
    test -z "${SUITE_RESULTS:-}" || echo "$passed $failed $skipped" >>"$SUITE_RESULTS"
    test -z "${SUITE_LOCK:-}" || exec {lock}<&-
    test "$failed" = 0
}

run_tests() {
    local log=$1.log label=$2 status
    shift 2
    mkdir -p "${log%/*}"
    logged "$log" "$@"
    status=$?
    judge "$log" $status
    if test $((passed + failed)) = 0; then
        reason="every test was skipped" failed=1
    fi
    report "$log" "$label" "$(sum "$passed" "$failed" "$skipped")"
}

run_step() {
    local log=$1.log label=$2 status
    shift 2
    mkdir -p "${log%/*}"
    logged "$log" "$@"
    status=$?
    passed=1 failed=0 skipped=0 reason=
    if test $status != 0; then
        passed=0 failed=1 reason="exit status $status"
    fi
    report "$log" "$label" "$(if test $failed = 0; then echo passed; else echo failed; fi)"
}

run_each() {
    local prefix=() all_passed=0 all_failed=0 all_skipped=0 program
    if [[ " $* " == *" -- "* ]]; then
        while test "$1" != --; do prefix+=("$1"); shift; done
        shift
    fi
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    for program; do
        echo "== $program"
        "${prefix[@]}" $program >"$log" 2>&1
        judge "$log" $?
        cat "$log"
        test -z "$reason" || echo "FAIL $program: $reason"
        all_passed=$((all_passed + passed))
        all_failed=$((all_failed + failed))
        all_skipped=$((all_skipped + skipped))
    done
    sum $all_passed $all_failed $all_skipped
    echo
    test $all_failed = 0
}

# Make each target in turn, and leave "passed failed skipped" of each suite in the file $1.
run_lane() {
    local results=$1 target status lines
    SUITE_RESULTS=$(mktemp)
    export SUITE_RESULTS
    trap 'rm -f "$SUITE_RESULTS"' EXIT
    shift
    for target; do
        : >"$SUITE_RESULTS"
        ${MAKE:-make} "$target"
        status=$?
        cat "$SUITE_RESULTS" >>"$results"
        lines=$(awk '$2 { failed = 1 } END { print NR == 0 ? "none" : failed ? "failed" : "fine" }' \
            "$SUITE_RESULTS")
        if test "$lines" = none || { test "$lines" = fine && test $status != 0; }; then
            echo "FAIL  $target: make ended with status $status"
            echo "0 1 0" >>"$results"
        fi
    done
    return 0
}

# A lane that was killed has not made all of its targets.
end_badly() {
    echo "FAIL  a lane of suites ended with status $?"
    echo "0 1 0" >>"$total"
}

# End the lanes and what they run, as ^C does what is in the foreground.
end_lanes() {
    local lane
    trap - INT TERM HUP
    for lane in "${lanes[@]}"; do kill -"$1" -- -"$lane" 2>/dev/null; done
    wait
    exit $((128 + $(kill -l "$1")))
}

run_total() {
    local flags=${MAKEFLAGS-} first=() second=()
    flags=${flags%% *}
    while test $# != 0 && test "$1" != --; do first+=("$1"); shift; done
    test $# = 0 || second=("${@:2}")
    if [[ $flags != -* && $flags == *n* ]]; then # a dry run, `make -n`
        printf 'make %s\n' "${first[@]}" "${second[@]}"
        return 0
    fi
    total=$(mktemp) SUITE_LOCK=$(mktemp)
    export SUITE_LOCK
    trap 'rm -f "$total" "$SUITE_LOCK"' EXIT
    if test ${#second[@]} = 0 || test -n "${V:-}" || test "$(nproc)" = 1; then
        (run_lane "$total" "${first[@]}" "${second[@]}") || end_badly
    else
        set -m # each lane a process group, which can be ended as one
        (run_lane "$total" "${first[@]}") & lanes=($!)
        (run_lane "$total" "${second[@]}") & lanes+=($!)
        set +m
        trap 'end_lanes INT' INT
        trap 'end_lanes TERM' TERM
        trap 'end_lanes HUP' HUP
        for lane in "${lanes[@]}"; do wait "$lane" || end_badly; done
        trap - INT TERM HUP
    fi
    read -r passed failed skipped < <(
        awk '{ p += $1; f += $2; s += $3 } END { print p + 0, f + 0, s + 0 }' "$total")
    sum "$passed" "$failed" "$skipped"
    echo
    test "$failed" = 0
}

action=$1
shift
"run_$action" "$@"
