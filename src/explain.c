/* The cost model in words: a table of all modes, and why one of them wins. */
#include "plan.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Text that ends where its room does. */
typedef struct {
    char *at;
    size_t room;
} page;

static void write(page *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void write(page *p, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(p->at, p->room, format, arguments);
    va_end(arguments);
    size_t taken = length > 0 ? (size_t)length : 0;
    if (p->room == 0)
        return;
    taken = taken < p->room ? taken : p->room - 1;
    p->at += taken;
    p->room -= taken;
}

/* "1.23 ms", in a ring of texts, so that one call of write may take several. */
static const char *unitText(double value, const char *const units[], const double scales[], int n)
{
    static _Thread_local char texts[8][24];
    static _Thread_local int next;
    char *text = texts[next = (next + 1) % 8];
    int unit = 0;
    while (unit + 1 < n && value >= 0.9995 * scales[unit + 1])
        unit++;
    snprintf(text, sizeof texts[0], "%.3g %s", value / scales[unit], units[unit]);
    return text;
}

static const char *secondsText(double seconds)
{
    static const char *const units[] = {"ns", "us", "ms", "s"};
    static const double scales[] = {1e-9, 1e-6, 1e-3, 1};
    return unitText(seconds, units, scales, 4);
}

static const char *bytesText(double bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    static const double scales[] = {1, 1e3, 1e6, 1e9, 1e12};
    return unitText(bytes, units, scales, 5);
}

static const char *bitsText(double bytes)
{
    static const char *const units[] = {"kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"};
    static const double scales[] = {125, 125e3, 125e6, 125e9};
    return unitText(bytes, units, scales, 4);
}

/* ---- what is planned for ---- */

static void writeCluster(page *p, const gsReducerConfig_t *config, const gsCluster_t *c)
{
    static const char *const overs[] = {"MPI", "threads", "NCCL"};
    const char *type = config->datatype == GS_FLOAT64   ? "float64"
                       : config->datatype == GS_FLOAT32 ? "float32"
                       : config->datatype == GS_FLOAT16 ? "float16"
                                                        : "bfloat16";
    int nodes = gsClusterNodes(c);
    write(p, "%s, %llu elements of %s\n", config->recipe, (unsigned long long)config->count, type);
    write(p, "%d rank%s on %d node%s over %s", c->ranks, c->ranks == 1 ? "" : "s", nodes, nodes == 1 ? "" : "s",
          overs[c->over]);
    if (nodes > 1)
        write(p, "; between nodes %s, %s a node", secondsText(c->latency), bitsText(c->bandwidth));
    if (c->ranksPerNode > 1)
        write(p, "; inside %s, %s a rank", secondsText(c->nodeLatency), bitsText(c->nodeBandwidth));
    write(p, "; %s a message\n", secondsText(c->message));
    write(p, "codec: %s a call, %.3g ns to encode an element, %.3g to decode a coordinate, %.3g to write an element; ",
          secondsText(c->call), c->encode * 1e9, c->decode * 1e9, c->write * 1e9);
    write(p, "%.3g ns to sum one\n\n", c->sum * 1e9);
}

/* ---- the table ---- */

static void writeRow(page *p, gsMode_t mode, const gsSchedule *s, const gsPlan_t *plan)
{
    double stages[GS_STAGES] = {0};
    for (int i = 0; i < s->count; i++)
        stages[s->phases[i].stage] += gsPhaseSeconds(s, &s->phases[i]);
    write(p, "%-13s %9s %9s %9s %9s %9s", gsGetModeName(mode), secondsText(plan->seconds[mode]),
          secondsText(stages[GS_STAGE_ENCODE]), secondsText(stages[GS_STAGE_EXCHANGE]),
          secondsText(stages[GS_STAGE_DECODE]), bytesText(plan->bytes[mode]));
    if (gsClusterNodes(&s->cluster) > 1)
        write(p, " %9s", bytesText(plan->nodeBytes[mode]));
    if (plan->seconds[GS_MODE_DENSE] > 0 && plan->seconds[mode] > 0)
        write(p, " %9.3g", plan->seconds[GS_MODE_DENSE] / plan->seconds[mode]);
    write(p, "%s\n", mode == plan->mode ? "  <-" : "");
}

static void writeTable(page *p, const gsReducerConfig_t *config, const gsCluster_t *cluster, const gsPlan_t *plan)
{
    write(p, "%-13s %9s %9s %9s %9s %9s", "mode", "time", "encode", "exchange", "decode", "a rank's");
    write(p, "%s %9s\n", gsClusterNodes(cluster) > 1 ? "  a node's" : "", "speed-up");
    for (int mode = 0; mode < GS_MODES; mode++) {
        gsSchedule schedule;
        const char *reason = gsPlanSchedule(config, cluster, (gsMode_t)mode, &schedule);
        if (reason)
            write(p, "%-13s %9s  %s\n", gsGetModeName((gsMode_t)mode), "-", reason);
        else
            writeRow(p, (gsMode_t)mode, &schedule, plan);
    }
    write(p, "\n");
}

/* ---- the reasons ---- */

/* The fastest mode besides dense; GS_MODE_DENSE where there is none. */
static gsMode_t bestCompressed(const gsPlan_t *plan)
{
    int best = GS_MODE_DENSE;
    for (int mode = GS_MODE_CAPACITY; mode < GS_MODES; mode++)
        if (plan->seconds[mode] >= 0 && (best == GS_MODE_DENSE || plan->seconds[mode] < plan->seconds[best]))
            best = mode;
    return (gsMode_t)best;
}

/* What the best recipe mode gains over dense with links `factor` times as wide. */
static double gainAt(const gsReducerConfig_t *config, const gsCluster_t *cluster, double factor)
{
    gsCluster_t c = *cluster;
    gsPlan_t plan;
    c.bandwidth *= factor;
    c.nodeBandwidth *= factor;
    gsPlanChoose(config, &c, &plan);
    return plan.seconds[GS_MODE_DENSE] - plan.seconds[bestCompressed(&plan)];
}

/* The factor where nothing is gained any more; 0 where there is none from 1e-9 to 1e9. */
static double breakEvenFactor(const gsReducerConfig_t *config, const gsCluster_t *cluster)
{
    double low = 1e-9, high = 1e9;
    if (!(gainAt(config, cluster, low) > 0) || !(gainAt(config, cluster, high) < 0))
        return 0;
    while (high / low > 1.001) {
        double middle = sqrt(low * high);
        if (gainAt(config, cluster, middle) > 0)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static void writeLink(page *p, const gsReducerConfig_t *config, const gsCluster_t *cluster, int pays)
{
    double factor = breakEvenFactor(config, cluster);
    int between = cluster->ranks > cluster->ranksPerNode;
    double speed = factor * (between ? cluster->bandwidth : cluster->nodeBandwidth);
    if (factor > 0)
        write(p, "Dense is as fast where links are %.3g times as wide: at %s %s.\n", factor, bitsText(speed),
              between ? "out of a node" : "out of a rank");
    else
        write(p, "No link is so %s that this changes.\n", pays ? "fast" : "slow");
}

static void writeReasons(page *p, const gsReducerConfig_t *config, const gsCluster_t *cluster, const gsPlan_t *plan)
{
    gsMode_t best = bestCompressed(plan);
    double dense = plan->seconds[GS_MODE_DENSE], seconds = plan->seconds[best];
    if (best == GS_MODE_DENSE) {
        write(p, "The recipe is dense: there is nothing to choose.\n");
        return;
    }
    if (dense < 0) {
        write(p, "%s is the fastest that is possible.\n", gsGetModeName(best));
        return;
    }
    if (plan->mode == GS_MODE_DENSE)
        write(p, "Do not compress here: dense takes %s, and %s, the best of the rest, %s.\n", secondsText(dense),
              gsGetModeName(best), secondsText(seconds));
    else
        write(p, "%s wins: %s against dense's %s.\n", gsGetModeName(best), secondsText(seconds), secondsText(dense));
    writeLink(p, config, cluster, plan->mode != GS_MODE_DENSE);
    if (plan->breakEven > 0)
        write(p, "By bytes alone a flat all-gather pays up to a density of %.3g %%; this recipe's is %.3g %%.\n",
              100 * fmin(plan->breakEven, 1.0), 100 * plan->density);
}

gsResult_t gsPlanExplain(const gsReducerConfig_t *config, const gsCluster_t *cluster, char *text, size_t bytes)
{
    gsPlan_t plan;
    gsCluster_t whole;
    if (!text || bytes == 0)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "text is %p and bytes %zu; expected room for the text", (void *)text,
                      bytes);
    GS_CHECK(gsPlanChoose(config, cluster, &plan));
    GS_CHECK(gsPlanComplete(config, cluster, &whole));
    page p = {text, bytes};
    writeCluster(&p, config, &whole);
    writeTable(&p, config, &whole, &plan);
    writeReasons(&p, config, &whole, &plan);
    return GS_SUCCESS;
}
