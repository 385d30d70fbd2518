#!/usr/bin/env bash
# run.sh: installs what is missing where it may, builds everything with warnings as errors, and runs all tests: plain, under
# the sanitizers, over MPI, and on CUDA devices, real or virtual. Ends with "N passed, N failed, N skipped".
#
#   tests/run.sh [--long]      --long: full products of the parameters instead of draws from them (GS_TEST_LONG=1)
#
#   GS_DEVICE_LAUNCHER         command before every program that needs a CUDA device, e.g. one that provides virtual ones
#   GS_TEST_DATA               folder with real gradients (grad_*.npy); tests that want them are skipped without
#   GS_JOBS                    processes of a build (default: processors)
set -uo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
build=$root/build
logs=$build/logs
traces=$build/traces
jobs=${GS_JOBS:-$(nproc)}
launcher=${GS_DEVICE_LAUNCHER:-}

case ${1:-} in
--long) export GS_TEST_LONG=1 ;;
"") ;;
*) sed -n '2,9s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac

# ---- packages -----------------------------------------------------------------------------------------------------------

packages="build-essential cmake pkg-config libgtest-dev libopenmpi-dev openmpi-bin libopenblas-dev zlib1g-dev gnuplot-nox
    dataset-fashion-mnist"

missing_packages() {
    for package in $packages; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || echo "$package"
    done
}

install_packages() {
    command -v dpkg-query >/dev/null || return 0
    local missing
    missing=$(missing_packages | tr '\n' ' ')
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing: $missing"
        # shellcheck disable=SC2086
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } \
            >"$logs/apt.txt" 2>&1 </dev/null
        missing=$(missing_packages | tr '\n' ' ')
    fi
    [ -z "$missing" ] || echo "missing, so what needs them is left out: $missing(apt-get install $missing)"
}

# ---- runs: each leaves a log in ctest's format --------------------------------------------------------------------------

# verdict LOG NAME STATUS TEXT: a run that is one test.
verdict() {
    local result='Passed '
    [ "$3" = 0 ] || result='***Failed'
    [ "$3" != 77 ] || result='***Skipped'
    printf '1: %s\n1/1 Test #1: %s ... %s\n' "$4" "$2" "$result" >>"$logs/$1.log"
    echo "  $2: $result ${4:+($4)}"
}

# build NAME TARGETS OPTION...: build/NAME; a build that fails is a failed test.
build() {
    local name=$1 targets=$2
    shift 2
    echo "== build/$name, at $SECONDS s"
    # shellcheck disable=SC2086
    if ! { cmake -S "$root" -B "$build/$name" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DGS_WERROR=ON \
        -DCMAKE_COMPILE_WARNING_AS_ERROR=ON "$@" && cmake --build "$build/$name" -j "$jobs" --target $targets; } \
        >"$logs/$name.txt" 2>&1 </dev/null; then
        grep -E -A6 'error:|CMake Error' "$logs/$name.txt" | head -n 60
        verdict "build-$name" "build-$name" 1 "see ${logs#"$root"/}/$name.txt"
        return 1
    fi
    grep -E '^-- gradsieve' "$logs/$name.txt"
}

counted() { # LOG: tests that passed or failed
    awk -f "$root/tests/summary.awk" "$logs/$1.log" | tail -n 1 | awk '{ print $1 + $3 }'
}

# run_tests NAME BUILD MINIMUM OPTION...: the tests that ctest chooses by the options; fewer than the minimum are a failure,
# for nothing passes by not running.
run_tests() {
    local name=$1 dir=$build/$2 minimum=$3 ran
    shift 3
    echo "== $name tests, at $SECONDS s"
    ctest --test-dir "$dir" -V --timeout 1800 -j "$jobs" "$@" 2>&1 </dev/null | tee "$logs/$name.log" |
        grep -E '^ *[0-9]+/[0-9]+ Test '
    ran=$(counted "$name")
    [ "$ran" -ge "$minimum" ] || verdict "$name-minimum" "least number of $name tests" 1 "$ran ran, at least $minimum must"
}

# found PART: what the summary of the build says of it.
found() {
    ! grep -E '^-- gradsieve' "$logs/test.txt" | grep -q "$1 no"
}

skip() { # NAME REASON
    verdict "$1" "$1 tests" 77 "$2"
}

# run_program NAME COMMAND...: one test, passed if the exit code is 0.
run_program() {
    local name=$1
    shift
    timeout 900 "$@" >"$logs/$name.txt" 2>&1 </dev/null
    verdict "$name" "$name" $? "$(grep -E '^# Out of bounds|error' "$logs/$name.txt" | tail -n 1)"
}

# ---- CUDA devices -------------------------------------------------------------------------------------------------------

has_device() {
    [ -n "$launcher" ] || nvidia-smi -L 2>/dev/null | grep -q '^GPU'
}

# The command before CUDA programs, as a script of one word: it keeps the names of the launched kernels.
write_launcher() {
    cat >"$build/on_device.sh" <<END
#!/usr/bin/env bash
# Runs a program on the device, and keeps what the virtual one tells of launched kernels: by whole lines, for others write too.
export PTXCPU_STATS=1
exec 3>&1
$launcher "\$@" 2>&1 >&3 3>&- |
    awk '/^ptxcpu: [^ ]+ grid\(/ { print \$2 >>"$traces/virtual device"; fflush("$traces/virtual device"); next } { print }' >&2 3>&-
exit \${PIPESTATUS[0]}
END
    chmod +x "$build/on_device.sh"
}

run_device_tests() {
    if ! found CUDA; then
        skip cuda "no nvcc"
    elif ! has_device; then
        skip cuda "no CUDA device, and no GS_DEVICE_LAUNCHER that provides one"
    else
        run_tests cuda test 20 -L '^cuda$'
    fi
}

list_kernels() {
    echo "== kernels launched, at $SECONDS s"
    for trace in "$traces"/*; do
        [ -s "$trace" ] || continue
        sed 's/ grid .*//' "$trace" | c++filt -p | sort | uniq -c |
            awk -v where="$(basename "$trace")" '{ n = $1; $1 = ""; printf " %s – %s (%d launches)\n", $0, where, n }'
    done
}

# ---- all of it ----------------------------------------------------------------------------------------------------------

# shellcheck disable=SC2054
recipes=(--recipe threshold --recipe threshold:value=f32,capacity=0.005 --recipe chunk-topk --recipe gspar
    --recipe gspar:value=shared --recipe randk:capacity=0.008 --recipe ef-sign --recipe ef21 --recipe cdadam --recipe topk)
halves=(--recipe threshold --recipe chunk-topk --recipe gspar:value=shared --recipe ef-sign --recipe ef21)

run_benches() {
    local bench=$build/test/bench/gs_all_reduce_perf
    echo "== benchmarks, at $SECONDS s"
    run_program all_reduce_perf-threads "$bench" -b 4 -e 1M -f 64 -n 2 -w 1 "${recipes[@]}"
    run_program all_reduce_perf-list "$bench" --segments 9000,300,0,4096,77,20000 -n 2 -w 1 "${recipes[@]}"
    run_program all_reduce_perf-scatter "$bench" --collective reduce-scatter -b 4 -e 1M -f 64 -n 2 -w 1 "${halves[@]}"
    run_program all_reduce_perf-gather "$bench" --collective all-gather -b 4 -e 1M -f 64 -n 2 -w 1 "${halves[@]}"
    run_program all_reduce_perf-bfloat16 "$bench" -b 2 -e 1M -f 64 -n 2 -w 1 -d bfloat16 -o avg --ranks 3 "${recipes[@]}"
    run_program stage_perf "$build/test/bench/gs_stage_perf" --count 100K --ranks 2 --recipe threshold --recipe randk
    if [ -x "$build/test/bench/gs_train" ]; then
        run_program train "$root/tests/test_train.sh" "$build/test/bench"
    else
        verdict train train 77 "no gs_train: it needs OpenBLAS and zlib"
    fi
    if [ -x "$build/test/bench/gs_papers" ]; then
        run_program papers "$root/tests/test_papers.sh" "$build/test/bench"
    else
        verdict papers papers 77 "no gs_papers: it needs zlib"
    fi
    if command -v mpirun >/dev/null; then
        run_program all_reduce_perf-mpi mpirun -n 3 "$bench" --transport mpi -b 4 -e 1M -f 64 -n 2 -w 1 "${recipes[@]}"
    else
        verdict all_reduce_perf-mpi all_reduce_perf-mpi 77 "no mpirun"
    fi
}

mkdir -p "$logs" "$traces"
rm -f "$logs"/* "$traces"/*
install_packages
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none
export CUDASIM_TRACE=$traces/simulator
write_launcher

# A virtual device reads PTX alone; machine code for three generations takes more than half of the build.
if build test all -DGS_DEVICE_LAUNCHER="${launcher:+$build/on_device.sh}" ${launcher:+-DGS_CUDA_ARCHITECTURES=90-virtual}; then
    run_tests cpu test 600 -L '^cpu$'
    run_tests package test 3 -L '^package$'
    if found MPI; then run_tests mpi test 20 -L '^mpi$'; else skip mpi "no MPI"; fi
    if found CUDA; then run_tests sim test 50 -L 'sim$'; else skip sim "no CUDA headers"; fi
    run_device_tests
    run_benches
fi

# Sanitizers find what they find at -O1 too, and compile in half the time; and in one of two instruction sets of one source. The
# simulator's tests have them built in.
sanitized=(-DGS_CUDA=OFF -DGS_MPI=OFF -DGS_BENCH=OFF -DGS_AVX2=OFF "-DCMAKE_C_FLAGS_RELWITHDEBINFO=-O1 -g1"
    "-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O1 -g1")
programs="test_api test_failures test_payloads test_threads test_wire"
if build asan "$programs" "${sanitized[@]}" -DGS_SANITIZE=address,undefined; then
    run_tests asan asan 100 -R "^(${programs// /|})(_[0-9]+)?\$"
fi
# The thread sanitizer does not know OpenMP's barriers.
programs="test_api test_failures test_threads"
if build tsan "$programs" "${sanitized[@]}" -DGS_SANITIZE=thread -DCMAKE_DISABLE_FIND_PACKAGE_OpenMP=ON; then
    run_tests tsan tsan 50 -R "^(${programs// /|})\$"
fi

list_kernels
echo "== all"
awk -f "$root/tests/summary.awk" "$logs"/*.log
