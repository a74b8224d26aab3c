#!/bin/bash
# tools/check_layers.sh - prove that includes go the one way that the architecture allows.
#
# Rules (each with the folders or files that it concerns in the tables below):
#   1. core includes nothing of ours but core; proto and store: core; shard: core and proto;
#      tools: the public header (the load tool: core, proto; the journal tool: core, store);
#      tests and bench: anything.
#   2. shard/hub_int.h alone may include store/store.h, for the files of the hub. Nobody includes tests or bench.
#   3. An outside library has one home.
#   4. A *_int.h stays in its folder. Includes of ours name the folder.
#   5. The first include of a .c file is its own header, where it has one.
set -euo pipefail
cd "$(dirname "$0")/.."

bad=0
complain() {
    echo "$1:$2: $3" >&2
    bad=1
}

# Folders of ours that a folder's files may include, as a regular expression.
allowed_for() {
    case $1 in
    core/*) echo 'core' ;;
    proto/* | store/*) echo 'core|%' ;;
    shard/*) echo 'core|proto|%' ;;
    tools/load/*) echo 'core|proto|%' ;;
    tools/journal.c) echo 'core|store' ;;
    tools/*) echo 'core/ringhub.h' ;;
    *) echo '.*' ;;
    esac | sed "s#%#${1%/*}#"
}

# The files that are the home of an outside header, as a regular expression; none for libc's.
home_of() {
    case $1 in
    liburing.h | liburing/*) echo 'core/(uring(_[a-z]+)?\.[ch]|file\.c)' ;;
    ck_*) echo 'core/ring\.c' ;;
    jemalloc/*) echo 'core/mem\.c' ;;
    yaml.h) echo 'core/config(_yaml)?\.c' ;;
    openssl/*) echo 'proto/upgrade\.c' ;;
    zlib.h) echo '(proto/deflate\.c|tests/.*)' ;;
    jansson.h) echo '(tests|bench)/.*' ;;
    check.h) echo 'tests/.*' ;;
    esac
}

# check_one FILE LINE QUOTE NAME - one include against the rules 1 to 4.
check_one() {
    local file=$1 line=$2 quote=$3 name=$4 home

    if [ "$quote" = '<' ]; then
        home=$(home_of "$name")
        # The bench folder may talk to the kernel and to a library directly: it compares with them.
        if [ -n "$home" ] && [[ ! $file =~ ^($home|bench/.*)$ ]]; then
            complain "$file" "$line" "<$name> has another home ($home)"
        fi
        return
    fi
    case $name in
    */*) ;;
    *) complain "$file" "$line" "\"$name\" does not name its folder" ;;
    esac
    if [ ! -f "$name" ]; then
        complain "$file" "$line" "\"$name\" is no file of ours"
    elif [ "$file $name" = "shard/hub_int.h store/store.h" ]; then
        return
    elif [[ $name =~ ^(tests|bench)/ && ! $file =~ ^(tests|bench)/ ]]; then
        complain "$file" "$line" "nobody includes ${name%%/*}"
    elif [[ ! $name =~ ^($(allowed_for "$file"))(/|$) ]]; then
        complain "$file" "$line" "${file%/*} may not include \"$name\""
    elif [[ $name =~ _int\.h$ && ${name%/*} != "${file%/*}" && ! $file =~ ^tests/ ]]; then
        complain "$file" "$line" "\"$name\" stays inside ${name%/*}"
    fi
}

files=$(find . -path ./build -prune -o \( -name '*.[ch]' -o -name '*.def' \) -printf '%P\n' | sort)
for file in $files; do
    first=
    while IFS=: read -r line text; do
        if [[ $text =~ ^[[:space:]]*\#[[:space:]]*include[[:space:]]*([\<\"])([^\>\"]+) ]]; then
            name=${BASH_REMATCH[2]}
            check_one "$file" "$line" "${BASH_REMATCH[1]}" "$name"
            first=${first:-$name}
        fi
    done < <(grep -nE '^[[:space:]]*#[[:space:]]*include' "$file")
    own=${file%.c}.h
    if [[ $file == *.c && -f $own && $first != "$own" ]]; then
        complain "$file" 1 "its first include is \"$first\", not its own header"
    fi
done
[ "$bad" = 0 ] || exit 1
echo "layers: $(wc -w <<<"$files") files, all includes go the one way"
