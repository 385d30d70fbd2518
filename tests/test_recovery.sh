#!/usr/bin/env bash
# test_recovery.sh PROGRAM: ranks that are killed in the middle of a call, on 3 and 4 ranks, in every mode of exchange; all others go on
# without them. Exit code 77: skipped.
set -u
program=$1
log=$(mktemp)
trap 'rm -f "$log"' EXIT
failures=0 cases=0

# Open MPI: more ranks than processors, as root in a container too.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_btl_vader_single_copy_mechanism=none

# survive RANKS RECIPE VICTIM CALL [list]
survive() {
    local ranks=$1 went
    shift
    cases=$((cases + 1))
    timeout 120 mpirun --enable-recovery -n "$ranks" "$program" "$@" >"$log" 2>&1 </dev/null
    went=$(grep -c 'went on$' "$log")
    [ "$went" = $((ranks - 1)) ] && return
    failures=$((failures + 1))
    echo "error: $1, rank $2 of $ranks killed at call $3: $went ranks went on, expected $((ranks - 1))"
    grep -v '^ *$' "$log" | head -n 40
}

if ! mpirun --version 2>/dev/null | grep -q 'Open MPI'; then
    echo "skipped: no Open MPI, whose mpirun --enable-recovery leaves survivors alone"
    exit 77
fi
survive 3 threshold:density=0.05 2 1         # nobody hears from it
survive 4 ef21:density=0.05,exchange=exact 1 2 # all have, and wait for its bytes
survive 3 ef21:density=0.05,exchange=exact 0 2 list
survive 4 dense 3 4
survive 4 threshold:density=0.05,exchange=owner 2 2
survive 4 cdadam:exchange=owner-exact 0 4 # its parts are there, its sums are missing
GS_RANKS_PER_NODE=2 survive 4 threshold:density=0.05,exchange=hierarchical 3 4
survive 3 threshold:density=0.05 1 0
if [ -n "${GS_TEST_LONG:-}" ]; then
    for recipe in threshold:density=0.05 chunk-topk:k=400,exchange=exact ef21:density=0.05 dense; do
        survive 3 $recipe 2 1
        survive 4 $recipe 1 2
        survive 3 $recipe 1 2 list
        survive 4 $recipe 1 0
    done
    survive 3 dgc:density=0.05 0 2
    survive 4 cdadam 3 2
    survive 4 gdsec:xi=1 0 2
    survive 3 lag-wk 1 2
    survive 3 chunk-topk:twoway=1,exchange=owner 1 3
fi
[ "$failures" = 0 ] && echo "recovery: $cases times all others went on"
exit $((failures > 0))
