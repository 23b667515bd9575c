#!/usr/bin/env bash
# The C core under AddressSanitizer with UBSan, and under ThreadSanitizer: tests/c. Usage: tools/sanitize.sh [cc]
set -euo pipefail
cd "$(dirname "$0")/.."
cc=${1:-gcc}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
flags="-std=c11 -g -O1 -fno-math-errno -fno-trapping-math -ffp-contract=off -Ifastlr/include -Ifastlr/kernels"
# clang says which loops it leaves scalar beside the sanitizers' checks; tools/vectorised.py is the judge of that.
warnings="-Wall -Wextra -Wdouble-promotion -Werror -Wno-pass-failed"
build() { # programs of tests/c, flags
    programs=$1 && shift
    rm -rf "$out/objects" && mkdir "$out/objects"
    for source in $(printf 'tests/c/%s.c ' $programs) fastlr/kernels/*.c fastlr/kernels/*/*.c; do
        printf '%s -o %s\n' "$source" "$out/objects/${source//\//_}.o"
    done | xargs -P "$(nproc)" -L 1 "$cc" $flags $warnings "$@" -c
    for program in $programs; do
        "$cc" "$@" "$out/objects/tests_c_$program.c.o" "$out"/objects/fastlr_*.o -o "$out/$program" -lm -pthread
    done
}

build "driver stored" -fsanitize=address,undefined -fno-sanitize-recover=all
echo "address, undefined: $(ASAN_OPTIONS=detect_leaks=1 "$out/driver")"
echo "address, undefined, stored: $(ASAN_OPTIONS=detect_leaks=1 "$out/stored")"
build "driver stored" -fsanitize=thread
# ThreadSanitizer cannot follow a fork of a process with threads; tests/test_threads.py forks.
echo "thread: $(DRIVER_NO_FORK=1 TSAN_OPTIONS=halt_on_error=1 "$out/driver")"
echo "thread, stored: $(TSAN_OPTIONS=halt_on_error=1 "$out/stored")"
build embed -fsanitize=address,undefined -fno-sanitize-recover=all -DFASTLR_NO_THREADS
echo "address, undefined, without threads: $("$out/embed")"
