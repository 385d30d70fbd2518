#!/usr/bin/env bash
# test_examples.sh BENCH_FOLDER CALL_TRACE [LAUNCHER...]: the training loop in CUDA C goes as gs_train does on the CPU and on devices, with and
# without graphs, as threads and as processes, in one go and from a checkpoint. CALL_TRACE: the library that writes what is given to gradsieve.
# LAUNCHER: the command before programs on devices.
set -u
. "$(dirname "$0")/idx.sh"
bench=$1 call_trace=$2
shift 2
launcher=("$@")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
steps=6
parameters=$((145 * 32 + 33 * 32 + 33 * 10))
model=(--data "$work/digits" --depth 2 --hidden 32 --lr 0.01)

# Open MPI: as root in a container too, with more ranks than processors.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_btl_vader_single_copy_mechanism=none

skip() {
    echo "skipped: $*"
    [ "$failures" = 0 ] && exit 77
    exit 1
}

fail() {
    echo "error: $*"
    failures=$((failures + 1))
}

on_device() {
    timeout 120 ${launcher[@]+"${launcher[@]}"} "$@"
}

# traced NAME COMMAND...: what its rank 0 gives to gradsieve, to NAME.calls.
traced() {
    local name=$1
    shift
    env "LD_PRELOAD=$call_trace" "CALL_TRACE=$work/$name.calls" "$@"
}

# mlp NAME FLAG...: what it prints, in order, to NAME; with trace=NAME its calls, too.
mlp() {
    local name=$1
    shift
    on_device ${trace:+env "LD_PRELOAD=$call_trace" "CALL_TRACE=$work/$trace.calls"} \
        "$bench/examples/mlp" "${model[@]}" "$@" >"$work/log" 2>"$work/errors" ||
        fail "mlp $*: $(tail -n 1 "$work/errors")"
    sort "$work/log" >"$work/$name"
    [ "$(hash_of "$name" | wc -l)" = 1 ] || fail "mlp $*: ranks differ: $(cat "$work/$name")"
}

# hash_of NAME: that of the parameters; a line for each that is there.
hash_of() {
    grep -o 'parameters [0-9a-f]*' "$work/$1" | sort -u
}

# train COMMAND... FLAG...: gs_train, from mlp's start.
train() {
    "$@" "${model[@]}" --start "$work/parameters" --json "$work/json" >"$work/trained" 2>&1 ||
        fail "$*: $(tail -n 1 "$work/trained")"
}

refused() { # WORDS FLAG...
    local words=$1
    shift
    on_device "$bench/examples/mlp" "${model[@]}" "$@" >"$work/log" 2>&1 && fail "mlp $*: no error"
    grep -q -- "$words" "$work/log" || fail "mlp $*: \"$(tail -n 1 "$work/log")\" does not say \"$words\""
}

# compare RECIPE RANKS: the losses of gs_train's first epochs, of one step each, to 1e-4, and the bytes of all records.
compare() {
    local worst sent
    sent=$(sed -n 's/.*"wire_bytes_per_rank": \([0-9]*\),/\1/p' "$work/json" | head -n 1)
    grep -q "^rank 0: $sent bytes" "$work/eager" || fail "$1, $2 ranks: gs_train sent $sent bytes: $(cat "$work/eager")"
    grep -o '"loss": [^,]*' "$work/json" | cut -d ' ' -f 2 | head -n "$steps" >"$work/losses"
    worst=$(sed -n 's/^step.*loss //p' "$work/eager" | paste "$work/losses" - | awk '
        { d = ($2 - $1) / $1; if (d < 0) d = -d; if (d > worst) worst = d; n += NF == 2 }
        END { print n == '$steps' ? worst + 0 : "no losses" }')
    [[ $worst != no* ]] && awk "BEGIN { exit !($worst < 1e-4) }" || fail "$1, $2 ranks: losses differ by $worst"
    echo "$1, $2 ranks: the losses of $steps steps differ by $worst at most, $sent bytes left a rank"
}

# compare_calls RECIPE: gradients, to 1e-5 of a layer's largest. Where a reducer keeps what it does not send, and sends without rounding, what it
# owes is 0 at what was in its record: the same coordinates, but for one in a thousand on the edge of being kept.
compare_calls() {
    head -n "$(wc -l <"$work/mlp.calls")" "$work/train.calls" >"$work/first.calls" # gs_train --overlap trains once more without
    paste -d ' ' "$work/mlp.calls" "$work/first.calls" | awk -v recipe="$1" '
        $1 != $5 || $2 != $6 { other++; next }
        { size = $3 < 0 ? -$3 : $3; apart = $3 - $7; apart = apart < 0 ? -apart : apart }
        size > largest[$1] { largest[$1] = size }
        apart > worst[$1] { worst[$1] = apart }
        { lines++; owes += $4 != 0; sent += $4 == 0 && $3 != 0; alone += ($4 == 0) != ($8 == 0) }
        END {
            for (call in largest) {
                gap = worst[call] / largest[call]
                most = gap > most ? gap : most
                calls++
            }
            if (other || !lines || most > 1e-5 || (owes && (!sent || 1000 * alone > sent)))
                bad = "error: "
            printf "%s%s: %d gradients of %d elements in all differ by %.1e at most", bad, recipe, calls, lines, most
            if (owes)
                printf ", %d coordinates in records, %d in one of the two alone", sent, alone
            print other ? "; other calls" : ""
            exit bad != ""
        }' || failures=$((failures + 1))
}

# trains RECIPE RANKS OPTIMIZER: as on the CPU, and captured in a graph the same again.
trains() {
    local flags=(--recipe "$1" --ranks "$2" --batch $((256 / $2)) --optimizer "$3")
    trace=mlp mlp eager "${flags[@]}" --steps "$steps" --report 1
    mlp graph "${flags[@]}" --steps "$steps" --report 1 --graph
    cmp -s "$work/eager" "$work/graph" || fail "$1, $2 ranks: $(diff "$work/eager" "$work/graph")"
    train traced train "$bench/gs_train" --overlap --epochs "$steps" --transport threads "${flags[@]}"
    compare "$1" "$2"
    compare_calls "$1, $2 ranks"
}

# same_bits RECIPE RANKS OPTIMIZER: gs_train on devices, with the same products. The gradient is summed in rank order, in one piece or in three.
same_bits() {
    local flags=(--recipe "$1" --ranks "$2" --batch $((256 / $2)) --optimizer "$3")
    mlp graph "${flags[@]}" --steps "$steps" --graph
    train on_device "$bench/gs_train" --device cuda --transport threads --epochs "$steps" "${flags[@]}"
    [ "$(hash_of graph)" = "$(hash_of trained)" ] || fail "$1: mlp $(hash_of graph), gs_train $(hash_of trained)"
}

# resumes RECIPE RANKS: in the middle of an epoch, with and without graphs.
resumes() {
    local flags=(--recipe "$1" --ranks "$2" --batch 16)
    mlp whole "${flags[@]}" --steps 13 --graph
    mlp first "${flags[@]}" --steps 6 --graph --save "$work/checkpoint"
    mlp second "${flags[@]}" --steps 13 --resume "$work/checkpoint" --graph
    [ "$(hash_of whole)" = "$(hash_of second)" ] || fail "$1: $(hash_of whole) in one go, resumed $(hash_of second)"
    refused "another recipe" --recipe dense --ranks "$2" --batch 16 --resume "$work/checkpoint"
    refused "batches of 16, expected 32" --recipe "$1" --ranks "$2" --batch 32 --resume "$work/checkpoint"
    refused "$work/absent.[0-9]: cannot be opened" "${flags[@]}" --resume "$work/absent"
}

# processes RECIPE RANKS: under mpirun the same as with threads.
processes() {
    local flags=(--recipe "$1" --batch 16 --steps 5 --graph)
    mlp threads "${flags[@]}" --ranks "$2"
    timeout 120 mpirun -n "$2" ${launcher[@]+"${launcher[@]}"} "$bench/examples/mlp" "${model[@]}" "${flags[@]}" \
        >"$work/processes" 2>"$work/errors" || fail "mlp over MPI: $(tail -n 1 "$work/errors")"
    [ "$(hash_of threads)" = "$(hash_of processes)" ] || fail "MPI: $(hash_of threads) as threads, $(hash_of processes)"
}

[ -x "$bench/examples/mlp" ] || skip "mlp is not built: it needs CUDA, NCCL, cuBLAS, cuRAND and zlib"
[ -x "$bench/gs_train" ] || skip "gs_train is not built: it needs OpenBLAS and zlib"
digits "$work/digits"
refused "no CUDA device\|expected no more than" --ranks 1024
devices=$(sed -n 's/.*expected no more than the \([0-9]*\) devices/\1/p' "$work/log")
[ "${devices:-0}" -ge 2 ] || skip "needs two CUDA devices: $(tail -n 1 "$work/log")"
most=$((devices < 4 ? 2 : 4))

# The start is alike for all recipes and numbers of ranks.
mlp start --steps 0 --ranks 2 --save "$work/start"
tail -c $((16 * parameters)) "$work/start.0" | head -c $((4 * parameters)) >"$work/parameters"

trains threshold:density=0.05,value=f32 2 adamw
trains gspar:density=0.1 "$most" amsgrad
trains dense "$most" adamw
same_bits identity "$most" adamw
same_bits dense 2 amsgrad
resumes threshold:density=0.05 "$most"
if command -v mpirun >/dev/null && ldd "$bench/examples/mlp" | grep -q libmpi; then processes threshold "$most"; fi
[ "$failures" = 0 ] && echo "mlp: as gs_train, in graphs, from checkpoints; errors as they should be"
exit $((failures > 0))
