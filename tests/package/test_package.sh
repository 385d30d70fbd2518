#!/usr/bin/env bash
# test_package.sh BUILD_DIR: installs the build into a fresh prefix, moves the prefix, and builds and runs consumers against it, one
# for each library that was built: by find_package, and by cc with pkg-config. Exit code 77: skipped.
set -eu

build=$(cd "$1" && pwd)
consumer=$(cd "$(dirname "$0")/consumer" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cmake --install "$build" --prefix "$work/first" >/dev/null
mv "$work/first" "$work/prefix"
library=$(dirname "$(find "$work/prefix" -name 'libgradsieve.so')")

parts=()
for part in mpi cuda nccl; do
    [ ! -e "$library/libgradsieve_$part.so" ] || parts+=("$part")
done

if [ -e "$build/nccl_plugin/libgradsieve_preload.so" ]; then
    env -u LD_LIBRARY_PATH ldd "$library/libgradsieve_preload.so" | grep -q 'libgradsieve.so.0 => /.*/libgradsieve.so.0'
    echo "libgradsieve_preload.so: installed, and finds its libraries beside it"
fi

run() { # PROGRAM: ranks of an MPI program are processes
    case ${1##*/} in
    mpi) OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 mpirun -n 3 "$1" ;;
    *) "$1" ;;
    esac
}

cmake -S "$consumer" -B "$work/build" -DCMAKE_PREFIX_PATH="$work/prefix" -DPARTS="$(IFS=';' && echo "${parts[*]}")" >/dev/null
cmake --build "$work/build" >/dev/null
for program in gradsieve "${parts[@]}"; do
    run "$work/build/$program"
    echo "find_package: $program built and ran"
done

if cmake -S "$consumer" -B "$work/absent" -DCMAKE_PREFIX_PATH="$work/prefix" -DPARTS=absent >/dev/null 2>&1; then
    echo "find_package: a component that is not there was found" >&2
    exit 1
fi

if ! command -v pkg-config >/dev/null; then
    echo "pkg-config: skipped: not installed"
    exit 77
fi
export PKG_CONFIG_PATH=$library/pkgconfig LD_LIBRARY_PATH=$library${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
for program in gradsieve "${parts[@]}"; do
    package=gradsieve-$program
    [ "$program" != gradsieve ] || package=gradsieve
    pkg-config --exists "$package >= 0.1"
    # shellcheck disable=SC2046
    cc -Wall -Werror "$consumer/$program.c" -o "$work/$program" $(pkg-config --cflags --libs "$package")
    run "$work/$program"
    echo "pkg-config: $program built and ran"
done
