#!/usr/bin/env bash
# gs_hosts.sh: hosts that are network namespaces of this machine, joined by links of a given speed, and gs_hosts on them: every way
# to sum one gradient, beside MPI_Allreduce over TCP. A table for each speed, and a plot of time against speed.
#
#   bench/gs_hosts.sh [flags] [-- COMMAND...]
#     --build DIR     a build folder with bench/gs_hosts (default build)
#     --hosts N       (default 4)
#     --ranks N       on each host (default 1)
#     --rate R        of every link, in each direction, as tc writes it; several times (default 100mbit and 1gbit)
#     --delay D       of every link, 0 for none; netem needed (default 1ms where the kernel has netem, else 0)
#     --recipe R      several times (default: chunk-topk:k=64 and threshold:density=0.01 in every mode of exchange)
#     --count N       elements of the gradient, and so --calls N, --seconds S, --warmup N: see gs_hosts --help
#     --json FILE     everything that was measured
#     --plot FILE     an SVG picture (default gs_hosts.svg; needs gnuplot)
#     -- COMMAND...   run this MPI program on the hosts instead
#
# Needs root, iproute2, util-linux and Open MPI. Exit code 77, with the reason, where this machine does not allow it. What it makes
# is in namespaces named gs_hosts-PID-N; they go when it ends, and those of a run that was killed when the next one begins.
set -euo pipefail

build=build hosts=4 ranks=1 delay='' json='' plot=gs_hosts.svg
rates=() recipes=() measured=() command=()
id=gs_hosts-$$
work=$(mktemp -d)

usage() { # REASON
    printf 'gs_hosts.sh: %s\n\n' "$1" >&2
    sed -n '5,15s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

unable() {
    echo "gs_hosts.sh: $1" >&2
    exit 77
}

expect() { # FLAG TEXT PATTERN WORDS
    [[ $2 =~ ^($3)$ ]] || usage "$1: got '$2', expected $4"
}

while [ $# -gt 0 ]; do
    [ $# -gt 1 ] || usage "$1: got no value"
    if [ "$1" = -- ]; then
        shift
        command=("$@")
        break
    fi
    case $1 in
    --build) build=$2 ;;
    --hosts) expect "$1" "$2" '[1-9][0-9]?' "1 to 99" && hosts=$2 ;;
    --ranks) expect "$1" "$2" '[1-9][0-9]?' "1 to 99" && ranks=$2 ;;
    --rate) expect "$1" "$2" '[0-9.]+[kmg]?bit' "bits a second such as 100mbit or 2.5gbit" && rates+=("$2") ;;
    --delay) delay=$2 ;;
    --recipe) recipes+=(--recipe "$2") ;;
    --count | --calls | --seconds | --warmup) measured+=("$1" "$2") ;;
    --json) json=$2 ;;
    --plot) plot=$2 ;;
    *) usage "$1: no such flag" ;;
    esac
    shift 2
done
[ ${#rates[@]} -gt 0 ] || rates=(100mbit 1gbit)
if [ ${#recipes[@]} -eq 0 ]; then
    modes=(capacity exact owner owner-exact)
    [ "$ranks" = 1 ] || modes+=(hierarchical)
    for codec in chunk-topk:k=64,value=bf16 threshold:density=0.01,value=bf16; do
        for mode in "${modes[@]}"; do
            recipes+=(--recipe "$codec,exchange=$mode")
        done
    done
fi

# ---- the hosts ----------------------------------------------------------------------------------------------------------

remove_hosts() { # PREFIX
    local name
    for name in $(ip netns list 2>/dev/null | awk '{ print $1 }' | grep "^$1-" || true); do
        ip netns pids "$name" | xargs -r kill -9 2>/dev/null || true
        ip netns del "$name" || true
    done
}

remove_forgotten() {
    local pid
    for pid in $(ip netns list | sed -n 's/^gs_hosts-\([0-9]*\)-0.*/\1/p'); do
        [ -d "/proc/$pid" ] || remove_hosts "gs_hosts-$pid"
    done
}

end() {
    [ ! -e "$work/made" ] || remove_hosts "$id"
    rm -rf "$work"
}
trap end EXIT
trap 'exit 130' INT TERM HUP

# shape NAMESPACE DEVICE RATE: what leaves it, beyond a burst of one large segment, goes at this rate.
shape() {
    ip netns exec "$1" tc qdisc replace dev "$2" root handle 1: tbf rate "$3" burst 70kb latency 200ms
}

# Namespace 0 is a switch, 1 to N are the hosts; each has one link to it.
make_hosts() {
    local i
    touch "$work/made"
    ip netns add "$id-0" || unable "the kernel makes no network namespace"
    ip -n "$id-0" link add name switch type bridge || unable "the kernel makes no bridge"
    ip -n "$id-0" link set switch up
    for i in $(seq "$hosts"); do
        ip netns add "$id-$i"
        ip -n "$id-0" link add name "port$i" type veth peer name eth0 netns "$id-$i" || unable "the kernel makes no veth"
        ip -n "$id-0" link set "port$i" master switch up
        ip -n "$id-$i" addr add "10.77.0.$i/24" dev eth0
        ip -n "$id-$i" link set lo up
        ip -n "$id-$i" link set eth0 up
    done
}

# A rate holds in both directions: at the host for what it sends, at the switch for what it gets.
shape_links() { # RATE
    local i
    for i in $(seq "$hosts"); do
        if ! { shape "$id-$i" eth0 "$1" && shape "$id-0" "port$i" "$1"; }; then
            unable "tc takes no rate $1; the kernel may have no tbf"
        fi
        [ "$delay" = 0 ] || delay_link "$id-$i" ||
            unable "--delay $delay: tc does not take it; the kernel may have no netem; expected --delay 0 there"
    done
}

delay_link() { # NAMESPACE
    ip netns exec "$1" tc qdisc replace dev eth0 parent 1:1 handle 10: netem delay "$delay" limit 100000 2>/dev/null
}

# Without --delay the kernel has the say.
choose_delay() {
    delay=1ms
    shape "$id-1" eth0 1gbit || unable "tc shapes no link; the kernel may have no tbf"
    delay_link "$id-1" || { delay=0 && echo "delay: none, for this kernel has no netem"; }
}

# ---- ranks on them ------------------------------------------------------------------------------------------------------

# Open MPI starts its daemons by a remote shell: this one enters the namespace, and the host gets a name of its own.
write_shell() {
    cat >"$work/shell" <<END
#!/usr/bin/env bash
host=\${1##*.}
shift
exec ip netns exec $id-\$host unshare --uts bash -c "hostname gs-host\$host; \$*"
END
    chmod +x "$work/shell"
}

# The hosts share this machine's processors, which no rank can know.
threads() {
    local each=$(($(nproc) / (hosts * ranks)))
    echo "${GS_THREADS:-$((each > 0 ? each : 1))}"
}

run_ranks() {
    local list
    list=$(seq -s , -f "10.77.0.%g:$ranks" "$hosts")
    "$work/shell" 10.77.0.1 exec env OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
        mpirun -np $((hosts * ranks)) --host "$list" --bind-to none --mca plm_rsh_agent "$work/shell" \
        --mca btl tcp,vader,self --mca btl_tcp_if_include eth0 --mca oob_tcp_if_include eth0 \
        -x "GS_THREADS=$(threads)" "$@" </dev/null
}

# ---- what comes out -----------------------------------------------------------------------------------------------------

measure() { # RATE
    echo "== $hosts hosts, links of $1, delay $delay"
    shape_links "$1"
    local own=()
    [ ${#command[@]} -gt 0 ] ||
        own=("$build/bench/gs_hosts" "${measured[@]}" "${recipes[@]}" --json "$work/$1.json")
    run_ranks "${own[@]}" "${command[@]}" | tee "$work/$1.txt" &
    wait $! # a signal ends this, but not a command in the foreground
}

write_json() {
    local rate comma='['
    for rate in "${rates[@]}"; do
        printf '%s\n{"hosts": %d, "rate": "%s", "delay": "%s", "rows":\n' "$comma" "$hosts" "$rate" "$delay"
        cat "$work/$rate.json"
        printf '}'
        comma=,
    done
    printf '\n]\n'
}

# RATE in Mbit/s: tc's units
megabits() {
    awk -v rate="$1" 'BEGIN {
        unit = tolower(rate); sub(/^[0-9.]+/, "", unit); sub(/bit$/, "", unit)
        print rate * (unit == "g" ? 1000 : unit == "m" ? 1 : unit == "k" ? 1e-3 : 1e-6)
    }'
}

# A block a row of the tables: speed and time, by the recipe's name.
plot_data() {
    local rate
    for rate in "${rates[@]}"; do
        awk -v speed="$(megabits "$rate")" '!/^#/ { print $9 == "bfloat16" ? $10 "-" $9 : $10, speed, $1 }' "$work/$rate.txt"
    done | awk '
        !($1 in points) { order[++names] = $1 }
        { points[$1] = points[$1] $2 " " $3 "\n" }
        END { for (i = 1; i <= names; i++) printf "\"%s\"\n%s\n\n", order[i], points[order[i]] }'
}

draw() {
    plot_data >"$work/points"
    gnuplot <<END
set terminal svg size 900,640 background "white"
set output "$plot"
stats "$work/points" using 1 nooutput
set xrange [STATS_min / 2:STATS_max * 2]
set logscale xy
set xlabel "speed of a link (Mbit/s)"
set ylabel "time of one sum (ms)"
set title "$hosts hosts, delay $delay"
set grid
set key below
plot for [i=0:$(($(grep -c '^"' "$work/points") - 1))] "$work/points" index i using 1:2 with linespoints lw 2 pt i+1 title columnheader(1) noenhanced
END
    echo "plot: $plot"
}

[ ${#command[@]} -gt 0 ] || [ -x "$build/bench/gs_hosts" ] ||
    usage "--build: no $build/bench/gs_hosts; build it, or name another folder"
[ "$(id -u)" = 0 ] || unable "needs root, which alone makes network namespaces"
for tool in ip tc unshare mpirun; do
    command -v $tool >/dev/null || unable "needs $tool (Debian: iproute2, util-linux, openmpi-bin)"
done

remove_forgotten
make_hosts
write_shell
[ -n "$delay" ] || choose_delay
for rate in "${rates[@]}"; do
    measure "$rate"
done
[ ${#command[@]} -eq 0 ] || exit 0
[ -z "$json" ] || write_json >"$json"
if command -v gnuplot >/dev/null; then draw; else echo "plot: skipped: no gnuplot"; fi
