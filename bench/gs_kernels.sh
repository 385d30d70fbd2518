#!/bin/sh
# Each kernel's registers and spills as ptxas reports them, and the bytes it moves per element, beside the floor.
#
#   bench/gs_kernels.sh [BUILD [COUNT]]   BUILD: a build folder with bench/gs_kernels (default build); COUNT: elements
#
#   GS_DEVICE_LAUNCHER   command before a program that needs a CUDA device; empty: run it as it is
#   GS_DEVICE_COUNTERS   the environment variable that makes a device that counts memory sectors write them to a file:
#                        a line a launch, with the kernel's symbol and "sectors N" for loads, stores and atomics.
#                        Empty: registers and spills only
#   NVCC                 the compiler (default nvcc, else /usr/local/cuda/bin/nvcc)
set -e
here=$(cd "$(dirname "$0")/.." && pwd)
build=${1:-build} count=${2:-409600}
nvcc=${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# ---- registers, stack and spills, of every architecture ----

for source in "$here"/kernels/*.cu; do
    for architecture in 80 90 100; do
        "$nvcc" -std=c++17 -O3 -fmad=false -I"$here/include" -I"$here/src" -Xptxas -v -cubin -o "$work/cubin" \
            -gencode "arch=compute_$architecture,code=sm_$architecture" "$source" 2>&1
    done
done | awk '
    /Compiling entry function/ { split($0, quoted, "\047"); kernel = quoted[2]; architecture = quoted[4] }
    /bytes stack frame/ { stack = $1; spill = $5 }
    /Used [0-9]+ registers/ {
        match($0, /Used [0-9]+/)
        print kernel "\t" architecture "\t" substr($0, RSTART + 5, RLENGTH - 5) "\t" stack "\t" spill
    }' | c++filt | sed -E 's/^void //; s/\(Source\)//; s/\([^\t]*\t/\t/; s/, /,/g' >"$work/registers"
awk -F '\t' '
    !($1 in seen) { seen[$1] = 1; order[++kernels] = $1 }
    { registers[$1, $2] = $3; bytes[$1] += $4 + $5; all += $4 + $5 }
    END {
        printf "%-32s %6s %6s %6s %14s\n", "# registers", "sm_80", "sm_90", "sm_100", "stack + spills"
        for (i = 1; i <= kernels; i++)
            printf "%-32s %6d %6d %6d %14d\n", order[i], registers[order[i], "sm_80"], registers[order[i], "sm_90"],
                registers[order[i], "sm_100"], bytes[order[i]]
        printf "# %d kernels, %d bytes of stack and spills\n", kernels, all
    }' "$work/registers"
[ -n "$GS_DEVICE_COUNTERS" ] || exit 0

# ---- bytes per element, of the last of eleven steps: by then threshold knows its tau ----

printf '\n# bytes an element, of sectors of 32; %s elements\n' "$count"
for recipe in threshold:density=0.01 chunk-topk:k=64 gspar:density=0.01 gspar:density=0.01,value=shared \
    randk:density=0.01; do
    for type in float bfloat16; do
        rm -f "$work/counters"
        # The launcher may be several words.
        # shellcheck disable=SC2086
        env "$GS_DEVICE_COUNTERS=$work/counters" $GS_DEVICE_LAUNCHER "$build/bench/gs_kernels" --recipe "$recipe" \
            --dtype "$type" --count "$count" --warmup 10 --steps 1 >"$work/out" 2>&1 || { cat "$work/out"; exit 1; }
        c++filt <"$work/counters" | awk -v recipe="$recipe" -v type="$type" -v count="$count" '
            !/ sectors / || /^ / { next }
            {
                match($0, /gs[A-Z][A-Za-z]*/)
                kernel = substr($0, RSTART, RLENGTH)
                sectors = 0
                for (i = 1; i < NF; i++)
                    sectors += $i == "sectors" ? $(i + 1) : 0
            }
            kernel == "gsBeginCall" { launches = 0; encode = decode = 0; decoding = 0 }
            {
                decoding = decoding || kernel == "gsCheckHeaders"
                name[++launches] = kernel
                moved[launches] = sectors * 32 / count
                if (decoding) decode += moved[launches]; else encode += moved[launches]
            }
            END {
                width = type == "float" ? 4 : 2
                floor = width + (recipe ~ /^(threshold|chunk-topk)/ ? 8 : 0)
                printf "\n%s %s: encode %.2f of %d (%.2fx), decode %.2f of %d (%.2fx)\n", recipe, type, encode,
                    floor, encode / floor, decode, width, decode / width
                for (i = 1; i <= launches; i++)
                    if (moved[i] >= 0.005)
                        printf "    %-20s %8.3f\n", name[i], moved[i]
            }'
    done
done
