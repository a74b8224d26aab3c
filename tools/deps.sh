#!/bin/sh
# tools/deps.sh - install what is missing of the Debian packages that a step needs.
#
# usage: tools/deps.sh [build|test|check]      each with what the ones before it need; make calls it
#
# When everything is there it only asks dpkg and ends; nothing is downloaded. Otherwise it says
# what it will install, then installs it, as root or through sudo. It never removes anything. make
# itself is among the packages, so this is also the first thing to run on a bare machine.
set -eu

build='gcc make libc6-dev liburing-dev libck-dev libjemalloc-dev libyaml-dev libssl-dev zlib1g-dev'
test='check libsubunit-dev libjansson-dev python3 python3-websockets nodejs node-ws curl chromium'
check='clang libclang-rt-dev clang-format clang-tidy cppcheck'

case ${1:-build} in
build) wanted=$build ;;
test) wanted="$build $test" ;;
check) wanted="$build $test $check" ;;
*) echo "usage: tools/deps.sh [build|test|check]" >&2 && exit 2 ;;
esac

if ! command -v dpkg-query >/dev/null; then
    echo "This is not a Debian: please install, under whatever names they have here: $wanted" >&2
    exit 0
fi

# shellcheck disable=SC2086 # a list of words
installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $wanted 2>/dev/null |
    sed -n 's/^installed //p') || true
missing=
for package in $wanted; do
    echo "$installed" | grep -qxF "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo >/dev/null; then
    as_root=sudo
else
    echo "Missing packages, and neither root nor sudo here. As root: apt-get install$missing" >&2
    exit 1
fi

echo "Will install with apt-get${as_root:+ (through sudo)}:$missing"
$as_root apt-get -q -o Acquire::Retries=3 update
# shellcheck disable=SC2086 # lists of words, and an empty $as_root is none
$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Acquire::Retries=3 \
    install --no-install-recommends $missing
