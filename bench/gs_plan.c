/* gs_plan: which exchange pays on a cluster, here or not: the cost model's table, its simulation, and the curves where one beats another. */
#include "plan/curves.h"
#include "plan/simulate.h"
#include "train/dtype.h"
#include "train/failure.h"
#include "train/flags.h"
#include "train/json_values.h"
#include "train/options.h"
#include "train/ranks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_FAILED = 1, EXIT_USAGE = 2, TEXT_BYTES = 8192, MOST_SIMULATED = 4096 };

typedef struct {
    int ranks, local; /* 0: not given */
    int over;         /* of the choices below */
    double count;
    int dtype;
    textList_t recipes;
    double latency, bandwidth, nodeLatency, nodeBandwidth, message, call; /* us and Gbit/s */
    double encode, decode, write, sum;                                    /* ns */
    bool measure, simulate, help;
    int seed;
    const char *json, *plot;
} settings_t;

/* What is planned for, and what comes of it. */
typedef struct {
    gsReducerConfig_t config;
    gsCluster_t cluster;
    gsPlan_t plan;
    double simulated[GS_MODES]; /* below 0: not */
} result_t;

#define AT(member) offsetof(settings_t, member)

static const flag_t flags[] = {
    {"--ranks", FLAG_INTEGER, AT(ranks), "N", 1, 16777215, "default 4; under mpirun with --measure, mpirun's number"},
    {"--ranks-per-node", FLAG_INTEGER, AT(local), "L", 1, 65536, "default 1; threads: all"},
    {"--over", FLAG_CHOICE, AT(over), "mpi|threads|nccl", 0, 0, "what ranks exchange over, default mpi"},
    {"--count", FLAG_REAL, AT(count), "C", 0, 1e13, "elements of the gradient, default 25557032"},
    {"--dtype", FLAG_CHOICE, AT(dtype), "f32|bf16|f16|f64", 0, 0, "of the gradient, default f32"},
    {"--recipe", FLAG_LIST, AT(recipes), "R1 R2 ...", 0, 0, "a table for each, default threshold:density=0.01"},
    {"--latency", FLAG_REAL, AT(latency), "US", 0, 1e9, "between nodes"},
    {"--bandwidth", FLAG_REAL, AT(bandwidth), "GBIT", 0, 1e6, "out of a node and into it, its ranks together, Gbit/s"},
    {"--intra-latency", FLAG_REAL, AT(nodeLatency), "US", 0, 1e9, "inside a node"},
    {"--intra-bandwidth", FLAG_REAL, AT(nodeBandwidth), "GBIT", 0, 1e6, "inside a node, of a rank, Gbit/s"},
    {"--message", FLAG_REAL, AT(message), "US", 0, 1e9, "what a rank spends on each message"},
    {"--call", FLAG_REAL, AT(call), "US", 0, 1e9, "of encoding and decoding, however short the gradient"},
    {"--encode", FLAG_REAL, AT(encode), "NS", 0, 1e6, "an element encoded"},
    {"--decode", FLAG_REAL, AT(decode), "NS", 0, 1e6, "a coordinate of a record decoded"},
    {"--write", FLAG_REAL, AT(write), "NS", 0, 1e6, "an element of the result written"},
    {"--sum", FLAG_REAL, AT(sum), "NS", 0, 1e6, "an element of the dense sum, where the library computes it"},
    {"--measure", FLAG_SWITCH, AT(measure), "", 0, 0, "measure what is not given: with N threads, or under mpirun"},
    {"--simulate", FLAG_SWITCH, AT(simulate), "", 0, 0, "run the modes' messages one by one, up to 4096 ranks"},
    {"--seed", FLAG_INTEGER, AT(seed), "N", 0, 2147483647, "of the simulation's records and loads, default 1"},
    {"--json", FLAG_TEXT, AT(json), "FILE", 0, 0, "write all figures, a list with one object for each recipe"},
    {"--plot", FLAG_TEXT, AT(plot), "FILE", 0, 0,
     "draw times against ranks, links and density, SVG; the first recipe's"},
    {"--help", FLAG_SWITCH, AT(help), "", 0, 0, "this text"},
};
enum { FLAG_COUNT = sizeof flags / sizeof flags[0] };

static void printHelp(void)
{
    printf("gs_plan: which exchange pays on a cluster, and when none does\n\n"
           "usage: gs_plan [flags]\n       mpirun -n N gs_plan --measure [flags]\n\n");
    flagsPrint(flags, FLAG_COUNT);
    printf(
        "\nFigures of the cluster that are neither given nor measured are gradsieve.h's defaults of gsCluster_t. The\n"
        "table has the predicted times of every mode by stage, the bytes that leave a rank and, of several nodes, a\n"
        "node in one call, and the speed-up over dense. src/plan.c and src/phases.c derive the formulas.\n"
        "--simulate draws the lengths of records and the loads of owners, and sends every message: ratio is the\n"
        "formula's time by the simulation's.\n"
        "Exit code: 0 done, 1 failed, 2 a command line that makes no sense.\n");
}

/* ---- what is asked for ---- */

static gsCluster_t clusterOf(const settings_t *s)
{
    static const int overs[] = {GS_OVER_MPI, GS_OVER_THREADS, GS_OVER_NCCL};
    gsCluster_t c = GS_CLUSTER_INIT;
    c.ranks = s->ranks ? s->ranks : RANKS_DEFAULT;
    c.ranksPerNode = s->local;
    c.over = overs[s->over];
    c.latency = s->latency * 1e-6;
    c.bandwidth = s->bandwidth * 125e6;
    c.nodeLatency = s->nodeLatency * 1e-6;
    c.nodeBandwidth = s->nodeBandwidth * 125e6;
    c.message = s->message * 1e-6;
    c.call = s->call * 1e-6;
    c.encode = s->encode * 1e-9;
    c.decode = s->decode * 1e-9;
    c.write = s->write * 1e-9;
    c.sum = s->sum * 1e-9;
    return c;
}

static gsReducerConfig_t configOf(const settings_t *s, const char *recipe)
{
    gsReducerConfig_t config = GS_REDUCER_CONFIG_INIT;
    config.datatype = dtypeOf(s->dtype)->type;
    config.recipe = recipe;
    config.count = (uint64_t)s->count;
    return config;
}

/* ---- measuring ---- */

typedef struct {
    result_t *results;
    int count;
    gsResult_t failed;
    char reason[FAILURE_LENGTH];
} measuring_t;

/* All ranks measure, and end with equal figures: the process's first rank keeps them. */
static void measureRank(const rank_t *rank, void *context)
{
    measuring_t *m = context;
    for (int i = 0; i < m->count; i++) {
        gsCluster_t cluster = m->results[i].cluster;
        gsResult_t result = gsCommMeasure(rank->comm, &m->results[i].config, &cluster);
        ranksShare(rank, &result, sizeof result); /* everybody has read the figures that were given */
        if (!rankLeads(rank))
            continue;
        m->results[i].cluster = cluster;
        if (result != GS_SUCCESS && m->failed == GS_SUCCESS)
            snprintf(m->reason, sizeof m->reason, "%s", gsGetLastError());
        m->failed = m->failed == GS_SUCCESS ? result : m->failed;
    }
}

static bool measure(result_t *results, int count, ranks_t *ranks)
{
    measuring_t m = {results, count, GS_SUCCESS, ""};
    if (!ranksConnect(ranks))
        return false;
    ranksRun(ranks, measureRank, &m);
    return m.failed == GS_SUCCESS || fail("--measure: %s", m.reason);
}

/* ---- one recipe ---- */

static bool simulate(result_t *result, uint64_t seed)
{
    for (int mode = 0; mode < GS_MODES; mode++) {
        gsSchedule schedule;
        if (gsPlanSchedule(&result->config, &result->cluster, (gsMode_t)mode, &schedule))
            continue;
        result->simulated[mode] = simulateSchedule(&schedule, seed);
        if (result->simulated[mode] < 0)
            return fail("--simulate: no memory for %d ranks", result->cluster.ranks);
    }
    return true;
}

static bool compute(const settings_t *settings, result_t *result)
{
    if (gsPlanComplete(&result->config, &result->cluster, &result->cluster) != GS_SUCCESS ||
        gsPlanChoose(&result->config, &result->cluster, &result->plan) != GS_SUCCESS)
        return fail("%s", gsGetLastError());
    for (int mode = 0; mode < GS_MODES; mode++)
        result->simulated[mode] = -1;
    return !settings->simulate || simulate(result, (uint64_t)settings->seed);
}

static void printSimulated(const result_t *result)
{
    printf("%-13s %12s %12s %7s\n", "mode", "formula ms", "simulated", "ratio");
    for (int mode = 0; mode < GS_MODES; mode++)
        if (result->simulated[mode] >= 0)
            printf("%-13s %12.4f %12.4f %7.3f\n", gsGetModeName((gsMode_t)mode), 1e3 * result->plan.seconds[mode],
                   1e3 * result->simulated[mode], result->plan.seconds[mode] / result->simulated[mode]);
    printf("\n");
}

static bool print(const result_t *result)
{
    char text[TEXT_BYTES];
    if (gsPlanExplain(&result->config, &result->cluster, text, sizeof text) != GS_SUCCESS)
        return fail("%s", gsGetLastError());
    printf("%s\n", text);
    if (result->simulated[GS_MODE_CAPACITY] >= 0 || result->simulated[GS_MODE_DENSE] >= 0)
        printSimulated(result);
    fflush(stdout);
    return true;
}

/* ---- JSON ---- */

static void writeCluster(FILE *file, const gsCluster_t *c)
{
    jsonCount(file, ",\n   ", "ranks", (uint64_t)c->ranks);
    jsonCount(file, ", ", "ranks_per_node", (uint64_t)c->ranksPerNode);
    jsonReal(file, ",\n   ", "latency_s", c->latency);
    jsonReal(file, ", ", "bandwidth", c->bandwidth);
    jsonReal(file, ", ", "intra_latency_s", c->nodeLatency);
    jsonReal(file, ", ", "intra_bandwidth", c->nodeBandwidth);
    jsonReal(file, ", ", "message_s", c->message);
    jsonReal(file, ",\n   ", "call_s", c->call);
    jsonReal(file, ", ", "encode_s", c->encode);
    jsonReal(file, ", ", "decode_s", c->decode);
    jsonReal(file, ", ", "write_s", c->write);
    jsonReal(file, ", ", "sum_s", c->sum);
}

static void writeResult(FILE *file, const void *results, int index)
{
    const result_t *r = (const result_t *)results + index;
    const char *lead = "";
    jsonString(file, "  {", "recipe", r->config.recipe);
    jsonCount(file, ", ", "count", r->config.count);
    writeCluster(file, &r->cluster);
    jsonString(file, ",\n   ", "fastest", gsGetModeName(r->plan.mode));
    jsonReal(file, ", ", "density", r->plan.density);
    jsonReal(file, ", ", "break_even_density", r->plan.breakEven);
    fputs(",\n   \"modes\": {", file);
    for (int mode = 0; mode < GS_MODES; mode++) {
        if (r->plan.seconds[mode] < 0)
            continue;
        fprintf(file, "%s\n    \"%s\": ", lead, gsGetModeName((gsMode_t)mode));
        jsonReal(file, "{", "seconds", r->plan.seconds[mode]);
        jsonReal(file, ", ", "rank_bytes", r->plan.bytes[mode]);
        jsonReal(file, ", ", "node_bytes", r->plan.nodeBytes[mode]);
        if (r->simulated[mode] >= 0)
            jsonReal(file, ", ", "simulated_seconds", r->simulated[mode]);
        putc('}', file);
        lead = ",";
    }
    fputs("}}", file);
}

/* ---- all of it ---- */

/* What can be found wrong before anything is done. */
static bool check(const settings_t *settings, const result_t *results)
{
    gsCluster_t whole;
    for (int i = 0; i < settings->recipes.count; i++)
        if (gsPlanComplete(&results[i].config, &results[i].cluster, &whole) != GS_SUCCESS)
            return fail("%s", gsGetLastError());
    if (settings->simulate && results[0].cluster.ranks > MOST_SIMULATED)
        return fail("--simulate: got %d ranks, expected at most %d", results[0].cluster.ranks, MOST_SIMULATED);
    return true;
}

static bool report(bool done)
{
    if (!done)
        fprintf(stderr, "gs_plan: %s\n", failureText());
    return done;
}

static bool run(const settings_t *settings, result_t *results)
{
    for (int i = 0; i < settings->recipes.count; i++)
        if (!compute(settings, &results[i]) || !print(&results[i]))
            return false;
    if (settings->json && !jsonWriteList(settings->json, writeResult, results, settings->recipes.count))
        return false;
    return !settings->plot || curvesDraw(settings->plot, &results[0].config, &results[0].cluster);
}

/* Measures in all processes; the first one goes on. */
static bool runMeasured(const settings_t *settings, result_t *results)
{
    ranks_t ranks;
    int transport = ranksUnderMpi() ? TRANSPORT_MPI : TRANSPORT_THREADS;
    ranksStart(&ranks, transport, settings->ranks);
    bool done = ranksCheck(&ranks, transport, settings->ranks) && measure(results, settings->recipes.count, &ranks);
    if (ranksAreRoot(&ranks))
        done = report(done && run(settings, results));
    ranksStop(&ranks);
    return done;
}

int main(int argc, char **argv)
{
    settings_t settings = {.count = 25557032, .seed = 1};
    result_t results[FLAGS_MAX_TEXTS] = {0};
    if (!report(flagsParse(flags, FLAG_COUNT, &settings, argc, argv)))
        return EXIT_USAGE;
    if (settings.help) {
        printHelp();
        return 0;
    }
    if (settings.recipes.count == 0)
        settings.recipes = (textList_t){1, {"threshold:density=0.01"}};
    for (int i = 0; i < settings.recipes.count; i++) {
        results[i].config = configOf(&settings, settings.recipes.texts[i]);
        results[i].cluster = clusterOf(&settings);
    }
    if (!report(check(&settings, results)))
        return EXIT_USAGE;
    bool done = settings.measure ? runMeasured(&settings, results) : report(run(&settings, results));
    return done ? 0 : EXIT_FAILED;
}
