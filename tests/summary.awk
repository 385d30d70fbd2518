# summary.awk: adds up logs of `ctest -V`. A GoogleTest program counts by its own tests, any other test as one.
# Prints why tests were skipped and which failed; the last line is the counts. Exit code 1 if anything failed.

function most(old, new) { return new + 0 > old + 0 ? new + 0 : old + 0 } # MPI ranks each print the same totals

{ gsub(/\033\[[0-9;]*m|\r/, "") } # colours: mpirun looks like a terminal

# A test's own output: "12: text".
/^[0-9]+: / {
    id = FILENAME ":" $1
    text = substr($0, index($0, ": ") + 2)
    if (text ~ /^\[  PASSED  \] [0-9]+ test/) { split(text, word, " "); passed[id] = most(passed[id], word[4]); own[id] = 1 }
    else if (text ~ /^\[  FAILED  \] [0-9]+ test/) { split(text, word, " "); failed[id] = most(failed[id], word[4]) }
    else if (text ~ /^\[  SKIPPED \] [0-9]+ test/) { split(text, word, " "); skipped[id] = most(skipped[id], word[4]) }
    else if (text ~ /^\[  SKIPPED \] .* ms\)/) { reasons[last[id]]++ }
    else if (text ~ /^\[  FAILED  \] .* ms\)/) { failures[text]++ }
    if (text !~ /^[ \t]*$/)
        last[id] = text
}

# ctest's verdict: "3/9 Test #3: name .... Passed 0.10 sec".
/^ *[0-9]+\/[0-9]+ Test +#[0-9]+: / {
    match($0, /#[0-9]+:/)
    id = FILENAME ":" substr($0, RSTART + 1, RLENGTH - 1)
    rest = substr($0, RSTART + RLENGTH + 1)
    split(rest, word, " ")
    name = word[1]
    if (rest ~ /\*\*\*Skipped/) {
        if (!skipped[id]) {
            skipped[id] = 1
            reasons[name ": " last[id]]++
        }
    } else if (rest !~ / Passed /) {
        if (failed[id] + 0 == 0) # it crashed, timed out, or ran too few tests
            failed[id] = 1
        failures[name ": " last[id]]++
    } else if (!own[id]) {
        passed[id] = 1
    }
}

END {
    for (reason in reasons)
        printf "skipped: %d: %s\n", reasons[reason], reason
    for (failure in failures)
        printf "FAILED: %s\n", failure
    for (id in passed) all_passed += passed[id]
    for (id in failed) all_failed += failed[id]
    for (id in skipped) all_skipped += skipped[id]
    printf "%d passed, %d failed, %d skipped\n", all_passed, all_failed, all_skipped
    exit all_failed > 0
}
