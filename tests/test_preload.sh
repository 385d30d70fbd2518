#!/usr/bin/env bash
# test_preload.sh JOB LIBRARY [LAUNCHER...]: a job that does not know gradsieve runs under libgradsieve_preload, in the ways that jobs have.
# Its sums say whether anything was lost, its report where every call has gone. Exit code 77: skipped, fewer than two devices.
#
# With GS_TEST_LONG=1 1,000 calls of each rank are summed, otherwise 60.
set -u
job=$1 library=$2
shift 2
launcher=("$@")
failed=0 ran=0

# Every step keeps 512 of 4096 coordinates, so that 8 steps with gradients of 0 bring back all that was kept; as float32, without rounding.
lossy=("GS_RECIPE=chunk-topk:k=512,value=f32")
referring=("GS_RECIPE=tng:select=identity,value=f32")
lossless=(GS_RECIPE=identity)
export GS_MIN_BYTES=4096 NCCL_VGPU_TIMEOUT=120

# expect NAME CODE "PATTERN..." [VARIABLE=VALUE...] -- OPTION... SCRIPT: the exit code, and lines that the output must have.
expect() {
    local name=$1 code=$2 patterns=$3 variables=() output status pattern bad=
    shift 3
    while [ "$1" != -- ]; do variables+=("$1") && shift; done
    shift
    output=$(timeout 300 "${launcher[@]}" env LD_PRELOAD="$library" "${variables[@]}" "$job" "$@" 2>&1)
    status=$?
    [ "$status" != 77 ] || { echo "skipped: $name needs more devices" && [ "$ran" != 0 ] && return; exit 77; }
    [ "$status" = "$code" ] || bad="exit code $status, expected $code"
    while IFS= read -r pattern; do
        grep -qE -- "$pattern" <<<"$output" || bad="no line with \"$pattern\""
    done <<<"$patterns"
    ran=$((ran + 1))
    [ -n "$bad" ] || { echo "passed: $name" && return; }
    failed=$((failed + 1))
    printf 'FAILED: %s: %s\n%s\n' "$name" "$bad" "$output"
}

# Three equal buckets take four steps to learn, for votes come after 3, 6 and 12 calls.
kept='sums conserved, ranks equal'
steps=50
[ -z "${GS_TEST_LONG:-}" ] || steps=990

# ---- exact: switched off, lossless, while learning, and whatever is no gradient ----

expect "switched off" 0 "exact 60 of 60, $kept
60 reductions: 0 compressed, 0 dense while learning, 60 passed
passed: 60 GS_DISABLE is set" "${lossy[@]}" GS_DISABLE=1 -- -n 6 'as(hiu)'
expect "lossless" 0 "exact 96 of 96, $kept
96 reductions: 60 compressed, 36 dense while learning, 0 passed" "${lossless[@]}" -- -n 8 'ab(hij)c'
expect "while learning" 0 "exact 18 of 18, $kept
18 reductions: 0 compressed, 18 dense while learning" "${lossy[@]}" -- -n 3 bsd
expect "what is no gradient" 0 "exact 60 of 60
60 reductions: 0 compressed, 0 dense while learning, 60 passed
passed: 20 below GS_MIN_BYTES
passed: 20 not of float16, bfloat16, float32 or float64
passed: 20 neither sum nor average" "${lossy[@]}" -- -n 10 lnm
expect "sizes left and taken" 0 "$kept
64 reductions: 26 compressed, 6 dense while learning, 32 passed
passed: 32 left by GS_SIZES" "${lossy[@]}" 'GS_SIZES=!8292,4000-9000' -- -n 8 -z 8 ab
expect "a limit on state" 0 "$kept
108 reductions: 56 compressed, 24 dense while learning, 28 passed
passed: 28 without a reducer
no reducer, for: the reducer of place 2 needs [0-9]+ bytes" "${lossy[@]}" GS_STATE_LIMIT=200000 -- -n 9 -z 9 bcd
expect "settings that cannot be used" 0 "exact 12 of 12
passed: 12 settings that cannot be used
GS_MIN_BYTES is \"many\"" GS_MIN_BYTES=many -- -n 6 b
expect "a recipe that cannot be used" 0 "exact 12 of 12
passed: 6 without a reducer
no reducer, for: .*exchange=capacity" GS_RECIPE=threshold:exchange=owner -- -n 6 b
expect "a recipe without a reduce-scatter" 0 "exact 48 of 48, $kept
48 reductions: 20 compressed, 12 dense while learning, 16 passed
passed: 16 reduce-scatters, which the recipe has not" "${referring[@]}" -- -n 8 bsc
expect "settings that differ" 0 "exact 24 of 24
passed: 11 settings that cannot be used, or differ" "${lossy[@]}" -- -m processes -e GS_MIN_BYTES=40000 -n 6 bc

# ---- compressed: nothing is lost, all ranks have the same bits, every call is accounted for ----

expect "out of place, many calls" 0 "exact [0-9]+ of $((2 * steps + 20)), $kept
$((2 * steps + 20)) reductions: $((2 * steps + 14)) compressed, 6 dense while learning, 0 passed
us to encode and .* the mean of [1-9]" "${lossy[@]}" -- -n "$steps" -z 10 a
expect "buckets, a loss, a norm" 0 "$kept
220 reductions: 108 compressed, 24 dense while learning, 88 passed" "${lossy[@]}" -- -n 12 -z 10 lbcdm
expect "groups of a layer's tensors, processes" 0 "$kept
110 reductions: 95 compressed, 15 dense while learning" "${lossy[@]}" -- -m processes -n 12 -z 10 '(hij)(bc)'
expect "one thread for four devices" 0 "$kept
440 reductions: 380 compressed, 60 dense while learning" "${lossy[@]}" -- -m one -r 4 -n 12 -z 10 '(hij)bc'
expect "two communicators" 0 "$kept
160 reductions: 136 compressed, 24 dense while learning
4 plans learned" "${lossy[@]}" -- -n 10 -z 10 axby
expect "graphs" 0 "$kept
108 reductions: 60 compressed, 30 dense while learning, 18 passed
230 exchanges on devices \(10 calls went into graphs\)" "${lossy[@]}" -- -g -n 16 -z 10 '(hij)bcl'
expect "graphs of one thread" 0 "$kept
exchanges on devices \(6 calls went into graphs\)" "${lossy[@]}" -- -g -m one -n 12 -z 10 '(bc)a'
expect "another order from the middle on" 0 "$kept
2 broken, 2 of them taken up again" "${lossy[@]}" -- -n 12 -t ca -z 24 ac
expect "another sequence from the middle on" 0 "ranks equal
4 plans learned, 2 broken, 0 of them taken up again" "${lossless[@]}" -- -n 40 -t axbh ac

# ---- reduce-scatters: parts to the owners of slices, and seals; learned, grouped and captured like all-reduces ----

expect "reduce-scatters, lossless" 0 "exact 80 of 80, $kept
80 reductions: 50 compressed, 30 dense while learning, 0 passed" "${lossless[@]}" -- -n 8 's(tub)w'
expect "reduce-scatters, bytes" 0 "$kept
44 reductions: 38 compressed, 6 dense while learning, 0 passed
113696 bytes left ranks where a dense ring sends 630192
us to encode and .* the mean of [1-9]" "${lossy[@]}" -- -n 12 -z 10 s
expect "both in a group, two communicators" 0 "$kept
120 reductions: 96 compressed, 24 dense while learning" "${lossy[@]}" -- -n 6 -z 9 '(swa)x'
expect "both in a group, processes" 0 "$kept
60 reductions: 48 compressed, 12 dense while learning" "${lossy[@]}" -- -m processes -n 6 -z 9 '(sb)tu'
expect "both in a group, one thread for four devices" 0 "$kept
180 reductions: 144 compressed, 36 dense while learning" "${lossy[@]}" -- -m one -r 4 -n 6 -z 9 '(sb)t'
expect "both in graphs" 0 "$kept
54 reductions: 36 compressed, 18 dense while learning
102 exchanges on devices \(6 calls went into graphs\)" "${lossy[@]}" -- -g -n 11 -z 9 '(sb)u'
expect "both in graphs of one thread" 0 "$kept
exchanges on devices \(6 calls went into graphs\)" "${lossy[@]}" -- -g -m one -n 10 -z 9 '(sb)t'

# ---- ranks that are not alike: NCCL's stand-in finds what its own rules forbid; real NCCL hangs in such calls, without us too ----

if [ ${#launcher[@]} -gt 0 ]; then
    for mode in threads processes; do
        expect "a rank with another count, $mode" 3 "ranks" "${lossy[@]}" -- -m $mode -i count -n 12 bcd
        expect "a rank that skips a call, $mode" 3 "ranks" "${lossy[@]}" -- -m $mode -i skip -n 12 bcd
    done
    for how in count skip; do
        expect "reduce-scatters, a rank with another $how" 3 "ranks" "${lossy[@]}" NCCL_VGPU_TIMEOUT=3 -- -i $how -n 12 'sbt'
    done
    expect "an abort while peers are gone" 3 "ranks" "${lossy[@]}" -- -i abort -n 12 bcd
fi

# ---- a second NCCL in the process ----

nccl=$("${launcher[@]}" ldd "$job" | awk '$1 == "libnccl.so.2" { print $3 }')
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp "$nccl" "$copy/libnccl.so.2"
expect "two NCCLs" 0 "exact 12 of 12
2 NCCLs are loaded" "${lossless[@]}" -- -d "$copy/libnccl.so.2" -n 6 b

echo "$ran runs, $failed failed"
[ "$failed" = 0 ] && [ "$ran" -ge 27 ]
