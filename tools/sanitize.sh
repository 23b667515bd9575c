#!/usr/bin/env bash
# The C core under AddressSanitizer with UBSan, and under ThreadSanitizer: tests/c. Usage: tools/sanitize.sh [cc]
set -euo pipefail
cd "$(dirname "$0")/.."
cc=${1:-gcc}
command -v "$cc" >/dev/null || { echo "tools/sanitize.sh: there is no $cc: install it, or name another" >&2; exit 1; }
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
flags="-std=c11 -g1 -O1 -fno-math-errno -fno-trapping-math -ffp-contract=off -Ifastlr/include -Ifastlr/kernels"
# clang says which loops it leaves scalar beside the sanitizers' checks; tools/vectorised.py is the judge of that.
warnings="-Wall -Wextra -Wdouble-promotion -Werror -Wno-pass-failed"
address="-fsanitize=address,undefined -fno-sanitize-recover=all"
thread="-fsanitize=thread"
wide="fastlr/kernels/*/*.c" # nearly all of the work, and nothing of threads: the same with and without

objects() { # a folder for them, sources, flags
    folder=$out/$1 sources=$2 && shift 2
    mkdir "$folder"
    for source in $sources; do
        printf '%s -o %s\n' "$source" "$folder/${source//\//_}.o"
    done | xargs -P "$(nproc)" -L 1 "$cc" $flags $warnings "$@" -c
}
passes() { # what it is, a command that prints what it did: by itself, since a command inside echo's words may fail unseen
    what=$1 && shift
    printed=$("$@")
    echo "$what: $printed"
}
program() { # one of tests/c, folders of objects, flags
    name=$1 folders=$2 && shift 2
    "$cc" $flags $warnings "$@" "tests/c/$name.c" $(printf "$out/%s/*.o " $folders) -o "$out/$name" -lm -pthread
}

objects wide "$wide" $address
objects threads "fastlr/kernels/*.c" $address
program driver "wide threads" $address
program stored "wide threads" $address
passes "address, undefined" env ASAN_OPTIONS=detect_leaks=1 "$out/driver"
passes "address, undefined, stored" env ASAN_OPTIONS=detect_leaks=1 "$out/stored"
objects serial "fastlr/kernels/*.c" $address -DFASTLR_NO_THREADS
program embed "wide serial" $address -DFASTLR_NO_THREADS
passes "address, undefined, without threads" "$out/embed"
objects thread "fastlr/kernels/*.c $wide" $thread
program driver thread $thread
program stored thread $thread
# ThreadSanitizer cannot follow a fork of a process with threads; tests/test_threads.py forks.
passes "thread" env DRIVER_NO_FORK=1 TSAN_OPTIONS=halt_on_error=1 "$out/driver"
passes "thread, stored" env TSAN_OPTIONS=halt_on_error=1 "$out/stored"
