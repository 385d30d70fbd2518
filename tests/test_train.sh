#!/usr/bin/env bash
# test_train.sh BENCH_FOLDER: the main job ends with the same parameters on every rank, as threads and as MPI processes, for every
# recipe; and what it cannot read or write is an error that names it.
set -u
train=$1/gs_train
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

# Open MPI: as root in a container too, with more ranks than processors.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_btl_vader_single_copy_mechanism=none

fail() {
    echo "error: $*"
    failures=$((failures + 1))
}

# hashes FILE: the parameters' hashes in a JSON, each once, with their number.
hashes() {
    grep -o '"parameters_hash": *\[[^]]*\]' "$1" | grep -o '[0-9a-f]\{16\}' | sort | uniq -c
}

same_everywhere() {
    local recipe=$1 threads processes
    "$train" --model softmax --recipe "$recipe" --ranks 4 --transport threads --epochs 1 --quiet --json "$work/threads.json" \
        >"$work/log" 2>&1 || fail "$recipe on threads: $(tail -n 1 "$work/log")"
    threads=$(hashes "$work/threads.json")
    [ "$(echo "$threads" | wc -l)" = 1 ] || fail "$recipe: ranks differ: $threads"
    command -v mpirun >/dev/null || return 0
    mpirun -n 4 "$train" --model softmax --recipe "$recipe" --transport mpi --epochs 1 --quiet \
        --json "$work/processes.json" >"$work/log" 2>&1 || fail "$recipe over MPI: $(tail -n 1 "$work/log")"
    processes=$(hashes "$work/processes.json")
    [ "$threads" = "$processes" ] || fail "$recipe: threads $threads, processes $processes"
}

# refused CODE WORDS FLAG...: ends with CODE and says WORDS.
refused() {
    local code=$1 words=$2 found
    shift 2
    "$train" --epochs 1 --quiet "$@" >"$work/log" 2>&1
    found=$?
    [ "$found" = "$code" ] || fail "gs_train $*: exit $found, expected $code"
    grep -q -- "$words" "$work/log" || fail "gs_train $*: \"$(tail -n 1 "$work/log")\" does not say \"$words\""
}

truncated() {
    mkdir -p "$work/data"
    for name in train-images-idx3 train-labels-idx1 t10k-images-idx3 t10k-labels-idx1; do
        zcat "/usr/share/datasets/fashion-mnist/$name-ubyte.gz" 2>/dev/null | head -c 5000 >"$work/data/$name-ubyte"
    done
}

if [ ! -f /usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz ]; then
    echo "skipped: no Fashion-MNIST (Debian: dataset-fashion-mnist)"
    exit 77
fi
for recipe in dense threshold:density=0.01 threshold:value=f32,capacity=0.005 chunk-topk:k=64 gspar:density=0.05 \
    gspar:value=shared randk; do
    same_everywhere "$recipe"
done
truncated
refused 1 "$work/data" --data "$work/data"
refused 1 "$work/absent" --data "$work/absent"
refused 1 "$work/absent/out.json" --json "$work/absent/out.json"
refused 2 "position 11" --recipe threshold:densty=0.01
refused 2 "epochs" --epochs none
[ "$failures" = 0 ] && echo "gs_train: same parameters everywhere, errors as they should be"
exit $((failures > 0))
