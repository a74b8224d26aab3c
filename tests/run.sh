#!/bin/bash
# tests/run.sh - run test programs, then the end-to-end tests; end with "N passed, N failed".
#
# usage: VARIANT=release [T=text] tests/run.sh PROGRAM...      (make test calls it)
#
# A test program prints, as Check does, "100%: Checks: 12, Failures: 0, Errors: 0" at its end. One
# that dies without it, or takes longer than its deadline, counts as one failure. With T only tests
# whose name contains it run, and it is an error if there are none.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

export VARIANT=${VARIANT:-release}
if [ -n "${T:-}" ]; then export T; else unset T; fi

log=build/$VARIANT/test.log
deadline=600
passed=0
failed=0
job=

# ThreadSanitizer needs its usual address space; newer kernels shuffle it too much.
fixed=()
[ "$VARIANT" = tsan ] && setarch -R true 2>/dev/null && fixed=(setarch -R)

trap '[ -z "$job" ] || kill "$job"; exit 130' INT TERM

# run NAME COMMAND... - runs it, books its counts, and shows its output when something failed.
run() {
    local name=$1 ran=0 bad=0 began=$SECONDS status summary
    shift

    timeout -k 5 "$deadline" ${fixed[@]+"${fixed[@]}"} "$@" >"$log" 2>&1 </dev/null &
    job=$!
    wait "$job"
    status=$?
    job=
    summary=$(grep -aE '^[0-9]+%: Checks: ' "$log" | tail -1)
    if [[ $summary =~ Checks:\ ([0-9]+),\ Failures:\ ([0-9]+),\ Errors:\ ([0-9]+) ]]; then
        ran=${BASH_REMATCH[1]}
        bad=$((BASH_REMATCH[2] + BASH_REMATCH[3]))
    elif [ "$status" = 0 ]; then
        status="0, but no counts"
    fi
    if [ "$status" != 0 ] && [ "$bad" = 0 ]; then
        bad=1
        ran=$((ran + 1))
    fi
    passed=$((passed + ran - bad))
    failed=$((failed + bad))
    if [ "$bad" -gt 0 ]; then
        cat "$log"
        echo "  FAIL  $name: $bad of $ran (exit status $status)"
    elif [ "$ran" -gt 0 ]; then
        printf '  ok    %-44s %4d tests %4d s\n' "$name" "$ran" $((SECONDS - began))
    fi
}

for program in "$@"; do
    run "$program" "$program"
done
for file in tests/e2e/test_*.py; do
    run "$VARIANT ringhubd, $file" tests/e2e/run.py "$file"
done

if [ -n "${T:-}" ] && [ $((passed + failed)) = 0 ]; then
    echo "no test's name contains '$T'" >&2
    exit 1
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
