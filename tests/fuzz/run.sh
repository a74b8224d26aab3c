#!/bin/bash
# tests/fuzz/run.sh PROGRAM SECONDS - fuzz one target, from the kept corpus; make fuzz calls it.
#
# What it finds on the way goes to build/corpus/NAME (worth keeping: copy it to tests/fuzz/corpus).
# A crash ends it with an error and leaves the input in build/corpus/NAME-crash-*. NAME.dict, where there
# is one, has words that are worth trying.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1

program=$1
seconds=$2
name=${program##*/fuzz_}
kept=tests/fuzz/corpus/$name
found=build/corpus/$name
mkdir -p "$found"
words=()
[ -f "tests/fuzz/$name.dict" ] && words=("-dict=tests/fuzz/$name.dict")
[ -d "$kept" ] || { echo "fuzz $name: no seeds in $kept" >&2 && exit 1; }

if ! "$program" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
    "${words[@]}" -artifact_prefix="build/corpus/$name-" "$found" "$kept" >"$found.log" 2>&1; then
    tail -60 "$found.log"
    echo "  FAIL  fuzz $name: the input is in build/corpus/$name-*"
    exit 1
fi
echo "  ok    fuzz $name: $(grep -a '^Done' "$found.log" | tail -1)"
