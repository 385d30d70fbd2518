#!/usr/bin/env bash
# test_readme.sh SOURCE_FOLDER: README's table of the environment is what src/params.def says.
#
#   awk -f tests/package/params.awk src/params.def     prints the table
set -eu
cd "$1"
diff <(awk -f tests/package/params.awk src/params.def) <(sed -n '/^| variable | |$/,/^$/p' README.md | sed '/^$/d') || {
    echo "README.md's table is not src/params.def's; expected what awk -f tests/package/params.awk src/params.def prints" >&2
    exit 1
}
