#!/usr/bin/env bash
# test_recovery.sh PROGRAM: ranks that are killed in the middle of a call, on 3 and 4 ranks, in every mode of exchange; all others go on
# without them. Exit code 77: skipped. GS_TEST_LONG=1: more methods, and moments at random.
set -u
program=$1
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
cases=0

# Open MPI: more ranks than processors, as root in a container too.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_hwloc_base_binding_policy=none

# attempt LOG RANKS RECIPE VICTIM CALL [list]
attempt() {
    local log=$1 ranks=$2 went
    shift 2
    timeout -k 5 60 mpirun --enable-recovery -n "$ranks" "$program" "$@" >"$log" 2>&1 </dev/null
    went=$(grep -c 'went on$' "$log")
    [ "$went" = $((ranks - 1)) ] && return
    touch "$logs/failed"
    echo "error: $*, $ranks ranks: $went went on, expected $((ranks - 1))"
    grep -v '^ *$' "$log" | head -n 40
}

# survive RANKS RECIPE VICTIM CALL [list]: two at a time, as they wait for deadlines most of the time.
survive() {
    cases=$((cases + 1))
    attempt "$logs/$cases" "$@" &
    [ $((cases % 2)) = 1 ] || wait
}

if ! mpirun --version 2>/dev/null | grep -q 'Open MPI'; then
    echo "skipped: no Open MPI, whose mpirun --enable-recovery leaves survivors alone"
    exit 77
fi
survive 3 threshold:density=0.05 2 1                # nobody hears from it
survive 3 ef21:density=0.05,exchange=exact 0 2 list # all have, and wait for its bytes
survive 4 dense 3 4
survive 4 threshold:density=0.05,exchange=owner 2 2
survive 4 cdadam:exchange=owner-exact 0 4 # its parts are there, its sums are missing
GS_RANKS_PER_NODE=2 survive 4 threshold:density=0.05,exchange=hierarchical 3 4
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
wait
[ ! -e "$logs/failed" ] || exit 1
echo "recovery: $cases times all others went on"
