#!/usr/bin/env bash
# test_symbols.sh LIBRARY...: a library exports names of its own alone, gs and a capital letter; one that stands before NCCL, what it
# wraps too. Exit code 77: skipped.
set -eu

command -v nm >/dev/null || { echo "skipped: no nm" && exit 77; }

failed=0
for library in "$@"; do
    own='^gs[A-Z]'
    [[ $library != *preload* ]] || own='^(gs|nccl)[A-Z]'
    names=$(nm --dynamic --defined-only "$library" | awk '{ print $NF }' | sed 's/@.*//')
    foreign=$(grep -Ev "$own" <<<"$names" || true)
    if [ -n "$foreign" ] || [ -z "$names" ]; then
        echo "${library##*/} exports: ${foreign:-nothing}" >&2
        failed=1
    else
        echo "${library##*/}: $(wc -l <<<"$names") names, all its own"
    fi
done
exit "$failed"
