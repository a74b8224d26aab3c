#!/bin/bash
# tools/tidy.sh FILE... - static analysis of these sources; any warning is an error.
#
# clang-tidy (checks in .clang-tidy) and cppcheck look for different things and are both quick
# enough. A finding that is wrong is silenced where it stands, with its reason: a NOLINT(check) or a
# cppcheck-suppress comment.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

flags=(-std=c11 -I. -D_GNU_SOURCE)
bad=0

# clang-tidy's standard error only counts what it left out.
printf '%s\0' "$@" | xargs -0 -n 2 -P "$(nproc)" \
    sh -c 'clang-tidy --quiet "$@" -- '"${flags[*]}"' 2>/dev/null' tidy || bad=1
cppcheck --quiet -j "$(nproc)" --error-exitcode=1 --inline-suppr "${flags[@]/-std=/--std=}" \
    --enable=warning,performance,portability --suppress=missingIncludeSystem "$@" || bad=1
[ "$bad" = 0 ] && echo "tidy: $# files are clean"
exit "$bad"
