#!/usr/bin/env bash
# test_package.sh BUILD_DIR: installs the build into a fresh prefix, moves the prefix, and builds and runs a consumer against
# it by find_package and by pkg-config. Exit code 77: skipped.
set -eu

build=$(cd "$1" && pwd)
consumer=$(cd "$(dirname "$0")/consumer" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cmake --install "$build" --prefix "$work/first" >/dev/null
mv "$work/first" "$work/prefix"
library=$(dirname "$(find "$work/prefix" -name 'libgradsieve.so')")

cmake -S "$consumer" -B "$work/build" -DCMAKE_PREFIX_PATH="$work/prefix" >/dev/null
cmake --build "$work/build" >/dev/null
"$work/build/consumer"
echo "find_package: built and ran"

if ! command -v pkg-config >/dev/null; then
    echo "pkg-config: skipped: not installed"
    exit 77
fi
export PKG_CONFIG_PATH=$library/pkgconfig
pkg-config --exists "gradsieve >= 0.1"
# shellcheck disable=SC2046
cc -Wall -Werror "$consumer/consumer.c" -o "$work/consumer" $(pkg-config --cflags --libs gradsieve)
LD_LIBRARY_PATH=$library "$work/consumer"
echo "pkg-config: built and ran"
