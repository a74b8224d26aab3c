#!/bin/bash
# tools/tidy.sh FILE... - static analysis of these sources; any warning is an error.
#
# clang-tidy (checks in .clang-tidy) and cppcheck look for different things and are both quick
# enough. A finding that is wrong is silenced where it stands, with its reason: // NOLINT(check) or
# a cppcheck-suppress comment.
set -euo pipefail
cd "$(dirname "$0")/.."

flags=(-std=c11 -I. -D_GNU_SOURCE)

printf '%s\0' "$@" |
    xargs -0 -n 2 -P "$(nproc)" sh -c 'clang-tidy --quiet "$@" -- '"${flags[*]}"' 2>/dev/null' tidy

cppcheck --quiet -j "$(nproc)" --error-exitcode=1 --inline-suppr --std=c11 -I. -D_GNU_SOURCE \
    --enable=warning,performance,portability --suppress=missingIncludeSystem "$@"
echo "tidy: $# files are clean"
