#!/usr/bin/env bash
# test_symbols.sh LIBRARY...: a library exports names of its own alone, gs and a capital letter; the one that stands before NCCL exactly
# what it wraps. Exit code 77: skipped.
set -eu

command -v nm >/dev/null || { echo "skipped: no nm" && exit 77; }
calls=$(dirname "$0")/../../nccl_plugin/preload_calls.def

# foreign LIBRARY NAMES: those that should not be there; of the preloaded library, those that are missing, too.
foreign() {
    case $1 in
    *preload*) diff <(sed -n 's/^PRELOAD_WRAPPED(\(.*\))/\1/p' "$calls" | sort) <(sort <<<"$2") | grep '^[<>]' ;;
    *) grep -Ev '^gs[A-Z]' <<<"$2" ;;
    esac || true
}

failed=0
for library in "$@"; do
    names=$(nm --dynamic --defined-only "$library" | awk '{ print $NF }' | sed 's/@.*//')
    wrong=$(foreign "$library" "$names")
    if [ -n "$wrong" ] || [ -z "$names" ]; then
        echo "${library##*/} exports: ${wrong:-nothing}" >&2
        failed=1
    else
        echo "${library##*/}: $(wc -l <<<"$names") names, all its own"
    fi
done
exit "$failed"
