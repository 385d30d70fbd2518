#!/usr/bin/env bash
# test_train.sh BENCH_FOLDER: the main job ends with the same parameters on every rank, as threads and as MPI processes, for every
# recipe; and what it cannot read or write is an error that names it.
set -u
. "$(dirname "$0")/idx.sh"
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

# same_everywhere RECIPE FLAG...: equal parameters on all ranks, and with ranks as processes the same as with threads.
same_everywhere() {
    local recipe=$1 threads processes
    shift
    "$train" "$@" --recipe "$recipe" --ranks 4 --transport threads --quiet --json "$work/threads.json" >"$work/log" 2>&1 ||
        fail "$* $recipe on threads: $(tail -n 1 "$work/log")"
    threads=$(hashes "$work/threads.json")
    [ "$(echo "$threads" | wc -l)" = 1 ] || fail "$* $recipe: ranks differ: $threads"
    command -v mpirun >/dev/null || return 0
    mpirun -n 4 "$train" "$@" --recipe "$recipe" --transport mpi --quiet --json "$work/processes.json" >"$work/log" 2>&1 ||
        fail "$* $recipe over MPI: $(tail -n 1 "$work/log")"
    processes=$(hashes "$work/processes.json")
    [ "$threads" = "$processes" ] || fail "$* $recipe: threads $threads, processes $processes"
}

# reaches FIGURE CONDITION FLAG...: the last epoch's FIGURE meets a condition like '> 1'.
reaches() {
    local figure=$1 condition=$2 last
    shift 2
    "$train" "$@" --ranks 4 --transport threads --quiet --json "$work/reached.json" >"$work/log" 2>&1 ||
        fail "gs_train $*: $(tail -n 1 "$work/log")"
    last=$(grep -o "\"$figure\": [^,]*" "$work/reached.json" | tail -n 1 | cut -d ' ' -f 2)
    echo "$last" | awk "{ exit !(\$1 $condition) }" || fail "gs_train $*: $figure $last, expected $condition"
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

# rows: LIBSVM rows whose number is a weighted sum of their values; and the same in two classes, by its sign.
rows() {
    awk 'BEGIN {
        for (i = 1; i <= 200; i++) {
            sum = 0
            row = ""
            for (j = 1; j <= 6; j++) {
                x = sin(i * j * j)
                sum += (j - 3) * x
                row = row sprintf(" %d:%.6f", j, x)
            }
            print sum row
        }
    }' >"$work/numbers"
    sed -E 's/^-[^ ]*/2/; t; s/^[^ ]*/7/' "$work/numbers" >"$work/classes"
    gzip -k "$work/classes"
}

# What needs no data.
rows
digits "$work/digits"
for recipe in dense chunk-topk:k=2; do
    same_everywhere "$recipe" --model logreg --data "$work/classes.gz" --test "$work/classes" --epochs 2 --batch 16
    same_everywhere "$recipe" --model linreg --data "$work/numbers" --epochs 2 --batch 0
    same_everywhere "$recipe" --model cnn --data "$work/digits" --epochs 2 --batch 16
done
same_everywhere gspar:density=0.5 --model logreg --data "$work/classes" --epochs 2 --batch 16 --dtype f64
same_everywhere gspar:density=0.5 --model cnn --data "$work/digits" --epochs 2 --batch 16 --dtype f16
for recipe in dense chunk-topk:k=2 lasg-wk gdsec lag-ps; do # with and without overlap, too
    same_everywhere "$recipe" --model cnn --data "$work/digits" --epochs 2 --batch 16 --overlap
done
same_everywhere chunk-topk:k=2 --model mlp --data "$work/digits" --epochs 2 --batch 16 --optimizer amsgrad --lr 0.01
same_everywhere chunk-topk:k=2 --model mlp --depth 2 --data "$work/digits" --epochs 2 --batch 16 --dtype bf16 --overlap
same_everywhere lag-ps --model cnn --data "$work/digits" --epochs 2 --batch 0 # with an estimate of its smoothness
for recipe in gdsec lag-wk lag-ps; do # these look at the iterate
    same_everywhere "$recipe" --model linreg --data "$work/numbers" --epochs 20 --batch 0 --dtype f64
done
reaches skipped_rounds '> 0' --model logreg --data "$work/classes" --epochs 50 --batch 0 --recipe lag-wk
reaches skipped_rounds '> 0' --model logreg --data "$work/classes" --epochs 50 --batch 0 --recipe lag-ps
reaches accuracy '> 0.98' --model logreg --data "$work/classes" --epochs 20 --batch 10 --lr 2
reaches mean_squared_error '< 1e-6' --model linreg --data "$work/numbers" --epochs 50 --batch 10
printf '1 1:2\n-1 3:1 2:1\n' >"$work/bad"
printf '1 1:2\n2 1:3\n3 1:1\n4 1:1\n' >"$work/four"
refused 1 "$work/bad: line 2: got '2:1'" --model logreg --data "$work/bad"
refused 1 "$work/absent" --model linreg --data "$work/absent"
refused 1 "$work/absent" --model linreg --data "$work/numbers" --test "$work/absent"
refused 1 "two classes" --model logreg --data "$work/four"
refused 2 "LIBSVM file" --model logreg
refused 2 "f64" --model mlp --dtype f64
refused 2 "batch" --model linreg --data "$work/four" --batch 2
refused 1 "$work/absent cannot be opened" --data "$work/digits" --start "$work/absent"
refused 1 "$work/four has not the 158760 bytes" --data "$work/digits" --start "$work/four"
refused 2 "softmax and mlp" --model cnn --data "$work/digits" --device cuda
refused 2 "lag-ps" --data "$work/digits" --device cuda --recipe lag-ps
refused 2 "f32" --data "$work/digits" --device cuda --dtype bf16
CUDA_VISIBLE_DEVICES='' refused 2 "no CUDA device\|is built where" --data "$work/digits" --device cuda

if [ ! -f /usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz ]; then
    echo "skipped: no Fashion-MNIST (Debian: dataset-fashion-mnist)"
    exit $((failures ? 1 : 77))
fi
for recipe in dense threshold:density=0.01 threshold:value=f32,capacity=0.005 chunk-topk:k=64 gspar:density=0.05 \
    gspar:value=shared randk; do
    same_everywhere "$recipe" --model softmax --epochs 1
done
truncated
refused 1 "$work/data" --data "$work/data"
refused 1 "$work/absent" --data "$work/absent"
refused 1 "$work/absent/out.json" --json "$work/absent/out.json"
refused 2 "position 11" --recipe threshold:densty=0.01
refused 2 "epochs" --epochs none
[ "$failures" = 0 ] && echo "gs_train: same parameters everywhere, errors as they should be"
exit $((failures > 0))
