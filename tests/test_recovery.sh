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

# survive RANKS RECIPE VICTIM CALL
survive() {
    local went
    cases=$((cases + 1))
    timeout 120 mpirun --enable-recovery -n "$1" "$program" "$2" "$3" "$4" >"$log" 2>&1 </dev/null
    went=$(grep -c 'went on$' "$log")
    [ "$went" = $(($1 - 1)) ] && return
    failures=$((failures + 1))
    echo "error: $2, rank $3 of $1 killed at call $4: $went ranks went on, expected $(($1 - 1))"
    grep -v '^ *$' "$log" | head -n 40
}

if ! mpirun --version 2>/dev/null | grep -q 'Open MPI'; then
    echo "skipped: no Open MPI, whose mpirun --enable-recovery leaves survivors alone"
    exit 77
fi
for recipe in threshold:density=0.05 chunk-topk:k=400,exchange=exact ef21:density=0.05 dense; do
    survive 3 $recipe 2 1 # nobody hears from it
    survive 4 $recipe 1 2 # all have, and wait for its bytes
done
survive 3 dgc:density=0.05 0 2
survive 4 cdadam 3 2
survive 4 gdsec:xi=1 0 2
survive 3 lag-wk 1 2
survive 4 threshold:density=0.05,exchange=owner 2 2
survive 4 cdadam:exchange=owner-exact 0 4 # its parts are there, its sums are missing
survive 3 chunk-topk:twoway=1,exchange=owner 1 3
survive 4 dense 3 4
GS_RANKS_PER_NODE=2 survive 4 threshold:density=0.05,exchange=hierarchical 3 4
for recipe in threshold:density=0.05 dense; do
    for ranks in 3 4; do
        survive $ranks $recipe 1 0
    done
done
[ "$failures" = 0 ] && echo "recovery: $cases times all others went on"
exit $((failures > 0))
