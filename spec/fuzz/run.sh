#!/bin/bash
# run.sh SECONDS DIRECTORY TARGET…: run fuzz targets, built into DIRECTORY/bin, for SECONDS each.
#
# Starts from the corpus of each. What is found on the way is kept in DIRECTORY/found, for the
# next time, unless FUZZ_FRESH is set: then everything begins anew, and with the same random
# numbers. A crash is kept in DIRECTORY/crashes, and it is told how to see it again.
set -u

seconds=$1 directory=$2
shift 2
passed=0 failed=0
export ASAN_OPTIONS=malloc_context_size=4:quarantine_size_mb=16

for target; do
    found=$directory/found/$target crashes=$directory/crashes/$target
    log=$directory/$target.log
    options=(-max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048
             -print_final_stats=1 -verbosity=1 -artifact_prefix="$crashes/")
    if test -e "spec/fuzz/$target.lua"; then # Lua is slow, and frees when it likes
        options+=(-max_len=400 -detect_leaks=0)
    else
        options+=(-max_len=5000)
    fi
    test -z "${FUZZ_FRESH:-}" || { rm -rf "$found"; options+=(-seed=1); }
    mkdir -p "$found" "$crashes"
    test ! -e "spec/fuzz/dict/$target" || options+=(-dict="spec/fuzz/dict/$target")
    if "$directory/bin/$target" "${options[@]}" "$found" "spec/fuzz/corpus/$target" >"$log" 2>&1
    then
        passed=$((passed + 1))
        word=ok
    else
        failed=$((failed + 1))
        word='not ok'
    fi
    awk -v target="$target" -v seconds="$seconds" '
        /^stat::number_of_executed_units:/ { runs = $2 }
        { for (i = 1; i < NF; i++) { if ($i == "cov:") edges = $(i + 1); if ($i == "ft:") features = $(i + 1) } }
        END { printf "# fuzz: %s: %d runs in %d s, %d edges, %d features\n", target, runs, seconds, edges, features }
    ' "$log"
    echo "$word - $target"
    test "$word" = ok && continue
    grep -v -e '^#[0-9]' -e '^INFO' -e '^stat::' -e '^    #[0-9]* .*fuzzer::' "$log" | head -n 50
    sed -n 's/^.*Test unit written to \(.*\)$/\1/p' "$log" | while read -r crash; do
        echo "to see it again: $directory/bin/$target $crash"
    done
done
printf '%d passed, %d failed\n' $passed $failed
test $failed = 0
