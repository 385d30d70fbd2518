# params.awk: README's table of the environment, from src/params.def.
BEGIN { print "| variable | |\n|---|---|" }
/^GS_PARAM/ {
    split($0, quoted, "\"")
    meaning = quoted[4]
    gsub(/\|/, "\\|", meaning)
    printf "| `%s` | %s |\n", quoted[2], meaning
}
