#!/bin/sh
# demo.sh: builds gs_train on a bare Debian machine and trains on Fashion-MNIST, dense against two recipes.
# Arguments go to gs_train, for example: demo.sh --epochs 2 --seed 3. DEMO_BUILD names another build folder.
set -eu

source_dir=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
build_dir=${DEMO_BUILD:-$source_dir/build/demo}
data_file=/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz
missing=

say() {
    echo "demo: $*"
}

# need PACKAGE COMMAND...: notes the package where the command fails.
need() {
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}

compiles() {
    echo "#include <$1>" | cc -E -
}

has_openblas() {
    compiles openblas_config.h || for dir in /usr/include/*/openblas-* /usr/include/openblas; do
        [ -f "$dir/openblas_config.h" ] && return 0
    done
}

find_missing() {
    missing=
    need gcc command -v cc
    need libc6-dev compiles stdio.h
    need make command -v make
    need cmake command -v cmake
    need libopenblas-dev has_openblas
    need zlib1g-dev compiles zlib.h
    need gnuplot-nox command -v gnuplot
    case " $* " in
    *" --data-dir "* | *" --data "*) ;;
    *) need dataset-fashion-mnist test -f "$data_file" ;;
    esac
}

give_up() {
    say "missing, by the names of Debian's packages:$missing"
    say "$1"
    exit 1
}

install_missing() {
    command -v apt-get >/dev/null 2>&1 || give_up "there is no apt-get here; install them by other means"
    [ "$(id -u)" -eq 0 ] || give_up "not root, so nothing was installed; run: apt-get install$missing"
    say "installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq || give_up "apt-get update failed"
    # shellcheck disable=SC2086 # a list of packages
    apt-get install -y -qq --no-install-recommends $missing >/dev/null || give_up "apt-get install failed"
}

compile() {
    cmake -S "$source_dir" -B "$build_dir" -DCMAKE_BUILD_TYPE=Release -DGS_CUDA=OFF -DGS_MPI=OFF -DGS_TESTS=OFF &&
        cmake --build "$build_dir" --target gs_train -j 2
}

build() {
    say "building in $build_dir"
    mkdir -p "$build_dir"
    compile >"$build_dir/demo.log" 2>&1 && return
    tail -n 30 "$build_dir/demo.log"
    say "the build failed; all of its output is in $build_dir/demo.log"
    exit 1
}

find_missing "$@"
[ -z "$missing" ] || install_missing
find_missing "$@"
[ -z "$missing" ] || give_up "still missing after apt-get install"
build
program=$(find "$build_dir" -type f -name gs_train -perm -u+x | head -n 1)
plot=$build_dir/demo.svg
"$program" --model mlp --ranks 4 --compare dense threshold:density=0.01 chunk-topk:k=64 --json "$build_dir/demo.json" \
    --plot "$plot" "$@"
say "figures: $build_dir/demo.json"
