#!/usr/bin/env bash
# test_papers.sh BENCH_FOLDER: gs_papers refuses what it cannot read; with GS_TEST_DATA=folder of LIBSVM files, LAG's table has the uploads
# that gradient descent and the server's trigger are known to need.
set -u
papers=$1/gs_papers
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

fail() {
    echo "error: $*"
    failures=$((failures + 1))
}

# refused CODE WORDS FLAG...: it ends with this code, and says these words.
refused() {
    local code=$1 words=$2 found
    shift 2
    "$papers" "$@" >"$work/log" 2>&1
    found=$?
    [ "$found" = "$code" ] || fail "gs_papers $*: exit $found, expected $code"
    grep -q -- "$words" "$work/log" || fail "gs_papers $*: \"$(tail -n 1 "$work/log")\" does not say \"$words\""
}

# uploads CASE METHOD: a figure of the table in $work/lag.json, one row a line.
uploads() {
    tr -d '\n' <"$work/lag.json" | sed 's/}, *{/}\n{/g' | grep "\"$1" | grep "\"$2\"" | sed 's/.*"uploads": *\([0-9]*\).*/\1/' | head -n 1
}

refused 2 "expected one of" nonsense
refused 1 "$work/absent" lag --data-dir "$work/absent"
refused 1 "workers" lag --workers 10
if [ -n "${GS_TEST_DATA:-}" ] && [ -f "$GS_TEST_DATA/lag_housing.libsvm.gz" ]; then
    "$papers" lag --data-dir "$GS_TEST_DATA" --json "$work/lag.json" >"$work/log" 2>&1 ||
        fail "gs_papers lag: $(tail -n 1 "$work/log")"
    [ "$(uploads "linear regression" GD)" = 5283 ] || fail "GD needs $(uploads "linear regression" GD) uploads, not 5283"
    [ "$(uploads "linear regression" LAG-PS)" = 1756 ] ||
        fail "LAG-PS needs $(uploads "linear regression" LAG-PS) uploads, not 1756"
else
    echo "LAG's table not run: no GS_TEST_DATA with lag_housing.libsvm.gz"
fi
[ "$failures" = 0 ] && echo "gs_papers: known uploads, errors as they should be"
exit $((failures > 0))
