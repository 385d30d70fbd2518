#!/usr/bin/env bash
# test_package.sh BUILD_DIR install|deb: installs the build into a fresh folder, by cmake --install or from the .deb that cpack makes, and
# builds and runs consumers against it, one for each library that was built: by find_package, and by cc with pkg-config. The .tar.gz has
# to have the same files as the .deb, and every program has to print its help. Exit code 77: skipped.
set -eu

build=$(cd "$1" && pwd)
consumer=$(cd "$(dirname "$0")/consumer" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    echo "$*" >&2
    exit 1
}

# An installed tree may be moved.
by_install() {
    cmake --install "$build" --prefix "$work/first" >/dev/null
    mv "$work/first" "$work/prefix"
}

# The packages are made in a folder of their own; their files are those of one staging area.
by_deb() {
    command -v dpkg-deb >/dev/null || { echo "deb: skipped: no dpkg-deb" && exit 77; }
    (cd "$work" && cpack --config "$build/CPackConfig.cmake" -B "$work/packages" >"$work/cpack.txt" 2>&1) ||
        fail "$(cat "$work/cpack.txt")"
    local deb tar
    deb=$(find "$work/packages" -maxdepth 1 -name '*.deb')
    tar=$(find "$work/packages" -maxdepth 1 -name '*.tar.gz')
    dpkg-deb --extract "$deb" "$work/root"
    mv "$work/root/usr" "$work/prefix"
    mkdir "$work/tar"
    tar -xzf "$tar" -C "$work/tar" --strip-components=1
    diff <(cd "$work/prefix" && find . ! -type d | sort) <(cd "$work/tar" && find . ! -type d | sort) ||
        fail "the .tar.gz has other files than the .deb"
    dpkg-deb --field "$deb" Package Version Architecture Depends
    dpkg-deb --field "$deb" Depends | grep -q '^libc6\b\|, libc6\b' || fail "$deb does not depend on libc6"
    echo "deb: unpacked"
}

"by_$2"
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

# What it is, how it is called, and one flag a line; in columns that a terminal has.
for program in "$work/prefix"/bin/gs_*; do
    name=${program##*/}
    help=$("$program" --help) || fail "$name --help: exit code $?"
    [[ $help == "$name: "*$'\n\n'"usage: "*$'\n\n  '* ]] || fail "$name --help begins with: ${help:0:200}"
    awk -v name="$name" 'length > 112 { print name " --help, line " NR " has " length " columns"; wide = 1 } END { exit wide }' \
        <<<"$help" || exit 1
    echo "$name: installed, with its help"
done

cmake -S "$consumer" -B "$work/build" -DCMAKE_PREFIX_PATH="$work/prefix" -DPARTS="$(IFS=';' && echo "${parts[*]}")" >/dev/null
cmake --build "$work/build" >/dev/null
for program in gradsieve "${parts[@]}"; do
    run "$work/build/$program"
    echo "find_package: $program built and ran"
done

if cmake -S "$consumer" -B "$work/absent" -DCMAKE_PREFIX_PATH="$work/prefix" -DPARTS=absent >/dev/null 2>&1; then
    fail "find_package: a component that is not there was found"
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
