/*
 * The cost model: what one call takes in every mode, and which is the fastest. A mode is a list of phases (plan.h), whose closed forms
 * phases.c derives; here is what they move and compute. For n elements of w bytes, P ranks on N nodes of L:
 *
 *   dense         slices of n w / P posted to their ranks, summed, and posted to all: 2 (P - 1)/P n w bytes leave a rank, as from a ring.
 *                 Over NCCL its ring, two rounds of n w / P, or its tree, whichever is faster
 *   capacity      encode n; a slot to everybody: (P - 1) slot bytes; decode P records of d n coordinates, write n
 *   exact         likewise, with the bytes of the expected record, and lengths before them
 *   owner         encode n; a P-th of the record to each owner; it decodes d n coordinates, writes n / P, encodes n / P; the sum's
 *                 record to everybody: 1 - (1 - d)^P of the owner's coordinates if ranks choose independently, or d of them where it is
 *                 compressed again; all of these decoded, n written. Slots, or with -exact the expected bytes
 *   hierarchical  the dense sum of slices of n / L inside a node; capacity between the nodes, with a slice each; the slices to the node
 *
 * Where bytes alone count, latencies and the codec being nothing, capacity takes (P - 1) d n c / B with c bytes a coordinate and dense
 * 2 (P - 1)/P n w / B: the same at d = 2 w / (P c), the break-even density.
 *
 * Over MPI every exchange begins with the ranks' preambles, and is cut into pieces (transport/mpi.c).
 */
#include "plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- modes and recipes ---- */

const char *gsGetModeName(gsMode_t mode)
{
    static const char *const names[GS_MODES] = {"dense", "capacity", "exact", "owner", "owner-exact", "hierarchical"};
    return (unsigned)mode < GS_MODES ? names[mode] : "unknown mode";
}

/* The key-value pair at `at`, behind its ':' or ','. */
static size_t pairLength(const char *at)
{
    return strcspn(at, ",");
}

char *gsRecipeInMode(const char *recipe, gsMode_t mode)
{
    static const char key[] = "exchange=";
    size_t name = strcspn(recipe, ":"), room = strlen(recipe) + sizeof key + 16, at = name;
    if (mode == GS_MODE_DENSE)
        return strdup("dense");
    char *text = malloc(room);
    if (!text)
        return NULL;
    memcpy(text, recipe, name);
    for (const char *pair = recipe + name; *pair; pair += 1 + pairLength(pair + 1)) {
        if (strncmp(pair + 1, key, sizeof key - 1) == 0)
            continue;
        text[at] = at == name ? ':' : ',';
        memcpy(text + at + 1, pair + 1, pairLength(pair + 1));
        at += 1 + pairLength(pair + 1);
    }
    snprintf(text + at, room - at, "%c%s%s", at == name ? ':' : ',', key, gsGetModeName(mode));
    return text;
}

static gsResult_t specInMode(const gsReducerConfig_t *config, const gsCluster_t *c, gsMode_t mode, gsSpec *spec)
{
    gsReducerConfig_t own = *config;
    char *recipe = gsRecipeInMode(config->recipe, mode);
    if (!recipe)
        return gsFail(GS_ERROR_OUT_OF_MEMORY, "no memory for a recipe of %zu characters", strlen(config->recipe));
    own.recipe = recipe;
    int ranks = c->ranks;
    if (mode == GS_MODE_HIERARCHICAL) { /* a reducer of each node's slice, which is whole blocks */
        uint64_t local = (uint64_t)c->ranksPerNode, blocks = (config->count + GS_BLOCK - 1) / GS_BLOCK;
        own.count = (blocks + local - 1) / local * GS_BLOCK;
        own.count = own.count < config->count ? own.count : config->count;
        ranks = gsClusterNodes(c);
    }
    gsResult_t result = gsSpecMake(&own, 0, ranks, 0, spec);
    free(recipe);
    return result;
}

/* ---- clusters ---- */

static gsResult_t checkFigure(const char *name, double value)
{
    if (isfinite(value) && value >= 0)
        return GS_SUCCESS;
    return gsFail(GS_ERROR_INVALID_ARGUMENT, "cluster->%s is %g; expected a finite number, 0 (not known) or more", name,
                  value);
}

static gsResult_t checkShape(const gsCluster_t *c)
{
    if (c->ranks < 0 || c->ranks >= 1 << 24)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "cluster->ranks is %d; expected 1 to 2^24 - 1", c->ranks);
    if (c->ranksPerNode < 0)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "cluster->ranksPerNode is %d; expected 0 (default) or more",
                      c->ranksPerNode);
    if (c->over < GS_OVER_MPI || c->over > GS_OVER_NCCL)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "cluster->over is %d; expected GS_OVER_MPI (0) to GS_OVER_NCCL (2)",
                      c->over);
    return GS_SUCCESS;
}

gsResult_t gsClusterCheck(const gsCluster_t *c)
{
    if (!c)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "cluster is NULL; expected a cluster");
    if (c->size != sizeof *c)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "cluster->size is %zu; expected %zu: begin with GS_CLUSTER_INIT",
                      c->size, sizeof *c);
    if (c->version / 100 != GS_VERSION_CODE / 100)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "cluster->version is %u; this library is %d", c->version,
                      GS_VERSION_CODE);
    GS_CHECK(checkShape(c));
    GS_CHECK(checkFigure("latency", c->latency));
    GS_CHECK(checkFigure("bandwidth", c->bandwidth));
    GS_CHECK(checkFigure("nodeLatency", c->nodeLatency));
    GS_CHECK(checkFigure("nodeBandwidth", c->nodeBandwidth));
    GS_CHECK(checkFigure("message", c->message));
    GS_CHECK(checkFigure("call", c->call));
    GS_CHECK(checkFigure("encode", c->encode));
    GS_CHECK(checkFigure("decode", c->decode));
    GS_CHECK(checkFigure("write", c->write));
    return checkFigure("sum", c->sum);
}

static void orElse(double *figure, double value)
{
    if (*figure == 0)
        *figure = value;
}

/* Of one core, ns an element: README's table. */
static double encodeOf(const gsSpec *s)
{
    switch (s->select) {
    case GS_SELECT_TOPK: return 1.7;
    case GS_SELECT_GSPAR: return 4.8;
    case GS_SELECT_RANDK: return 2.5;
    case GS_SELECT_LARGEST: return 1.8;
    case GS_SELECT_ALL: return s->random ? 2.5 : 1.0;
    default: return 0.9;
    }
}

static void complete(gsCluster_t *c, const gsSpec *s)
{
    double device = c->over == GS_OVER_NCCL ? 0.01 : 1.0; /* of a core's time: by the speed of its memory */
    if (c->ranksPerNode == 0)
        c->ranksPerNode = c->over == GS_OVER_THREADS ? c->ranks : 1;
    orElse(&c->latency, 10e-6);
    orElse(&c->bandwidth, 12.5e9);
    orElse(&c->nodeLatency, 2e-6);
    orElse(&c->nodeBandwidth, c->over == GS_OVER_NCCL ? 200e9 : 5e9);
    orElse(&c->message, 1e-6);
    orElse(&c->call, 20e-6);
    orElse(&c->encode, encodeOf(s) * 1e-9 * device);
    orElse(&c->decode, (s->layout == GS_LAYOUT_ALL ? 0.15e-9 : 3e-9) * device);
    orElse(&c->write, 0.35e-9 * device);
    orElse(&c->sum, 1e-9 * device);
}

/* The cluster with all figures known, and the recipe as all its ranks have it. */
static gsResult_t settle(const gsReducerConfig_t *config, const gsCluster_t *cluster, gsCluster_t *whole, gsSpec *spec)
{
    GS_CHECK(gsClusterCheck(cluster));
    if (cluster->ranks == 0 || cluster->ranksPerNode > cluster->ranks)
        return gsFail(
            GS_ERROR_INVALID_ARGUMENT,
            "cluster->ranks is %d and ranksPerNode %d; expected 1 rank or more, and on a node no more than all",
            cluster->ranks, cluster->ranksPerNode);
    GS_CHECK(gsSpecMake(config, 0, cluster->ranks, 0, spec));
    GS_CHECK(gsHalfRefuse(config, "the cost model knows all-reduces alone"));
    *whole = *cluster;
    complete(whole, spec);
    return GS_SUCCESS;
}

gsResult_t gsPlanComplete(const gsReducerConfig_t *config, const gsCluster_t *cluster, gsCluster_t *whole)
{
    gsSpec spec;
    return settle(config, cluster, whole, &spec);
}

/* ---- sizes ---- */

/* Coordinates that a record is expected to have. */
static double keptOf(const gsSpec *s)
{
    int unknown = s->tau >= 0 || s->rms > 0 || s->epsilon > 0 || s->select == GS_SELECT_STEP;
    return (double)(unknown || s->target > s->capacity || s->layout != GS_LAYOUT_GLOBAL ? s->capacity : s->target);
}

/* Of a record about `share` of the blocks, with so many slots. */
static double recordBytes(const gsSpec *s, double share, double slots)
{
    gsRecordExtent extent = gsSpecExtent(s, (uint64_t)ceil((double)s->count * share));
    extent.blocks = (uint32_t)ceil(s->blocks * share);
    extent.whole = (uint64_t)ceil((double)extent.whole * share);
    gsRecordShape shape = {.of = extent,
                           .slots = {(uint64_t)ceil(slots), 0},
                           .layout = s->layout,
                           .value = s->value,
                           .aux = gsSpecAux(s),
                           .flags = s->pool ? GS_FLAG_REFERENCES : 0};
    return (double)gsRecordLayout(&shape).bytes;
}

/* How ranks' records differ: a threshold follows its own rank's gradient, draws have their deviation. */
static double recordSpread(const gsSpec *s)
{
    double kept = keptOf(s);
    if (s->layout != GS_LAYOUT_GLOBAL || s->select == GS_SELECT_LARGEST || kept < 1)
        return 0;
    return s->random ? 1 / sqrt(kept) : 0.05;
}

/* How loads of owners with as many blocks differ: blocks of real gradients at 1 % have twice their mean as deviation. */
static double ownerSpread(const gsSpec *s)
{
    int even = s->layout != GS_LAYOUT_GLOBAL || s->select == GS_SELECT_RANDK;
    return even || s->blocks == 0 ? 0 : 2 / sqrt(fmax(1, (double)s->blocks / s->nranks));
}

/* ---- phases ---- */

static gsPhase *add(gsSchedule *s, gsPhaseKind kind, gsPhaseGroup group, gsPhaseStage stage)
{
    gsPhase *phase = &s->phases[s->count++];
    *phase = (gsPhase){.kind = kind, .group = group, .stage = stage, .rounds = 1, .pieces = 1};
    return phase;
}

static gsPhase *compute(gsSchedule *s, gsPhaseStage stage, double seconds)
{
    gsPhase *phase = add(s, GS_PHASE_COMPUTE, GS_WITH_ALL, stage);
    phase->seconds = seconds;
    return phase;
}

static void announce(gsSchedule *s, gsPhaseKind kind, double bytes)
{
    gsPhase *phase = add(s, kind, GS_WITH_ALL, GS_STAGE_EXCHANGE);
    phase->bytes = bytes;
    phase->announces = 1;
}

static double members(const gsCluster_t *c, gsPhaseGroup group)
{
    return group == GS_WITH_ALL ? c->ranks : group == GS_WITH_NODE ? c->ranksPerNode : gsClusterNodes(c);
}

/* As mpi.c cuts: at most 1 MiB, and 4 MiB for all ranks together unless that is less than 4 KiB each. */
static double piecesOf(double bytes, double ranks)
{
    double piece = fmin(1 << 20, fmax(4096, (4 << 20) / ranks));
    return fmax(1, ceil(bytes / piece));
}

enum { PREAMBLE_BYTES = 32, LENGTH_BYTES = 8 };

static gsPhase *post(gsSchedule *s, gsPhaseGroup group, double bytes)
{
    int mpi = s->cluster.over == GS_OVER_MPI;
    if (mpi)
        announce(s, GS_PHASE_POSTED, PREAMBLE_BYTES);
    gsPhase *phase = add(s, GS_PHASE_POSTED, group, GS_STAGE_EXCHANGE);
    phase->bytes = bytes;
    phase->pieces = mpi ? piecesOf(bytes, members(&s->cluster, group)) : 1;
    return phase;
}

static void ring(gsSchedule *s, gsPhaseGroup group, int rounds, double bytes)
{
    gsPhase *phase = add(s, GS_PHASE_RING, group, GS_STAGE_EXCHANGE);
    phase->rounds = rounds;
    phase->bytes = bytes;
}

static void gatherSlots(gsSchedule *s, gsPhaseGroup group, double bytes)
{
    if (s->cluster.over == GS_OVER_NCCL)
        ring(s, group, 1, bytes);
    else
        post(s, group, bytes);
}

double gsGatherSeconds(const gsCluster_t *cluster, gsPhaseGroup group, double bytes)
{
    gsSchedule s = {.cluster = *cluster};
    gatherSlots(&s, group, bytes);
    return gsScheduleSeconds(&s);
}

/* Preambles tell the lengths that all ranks get alike; those of parts follow them. */
static void postExact(gsSchedule *s, gsPhaseLoad load, double bytes)
{
    if (s->cluster.over == GS_OVER_NCCL)
        announce(s, load == GS_LOAD_TO_OWNER ? GS_PHASE_POSTED : GS_PHASE_RING, LENGTH_BYTES);
    if (s->cluster.over == GS_OVER_MPI && load == GS_LOAD_TO_OWNER)
        announce(s, GS_PHASE_POSTED, LENGTH_BYTES);
    post(s, GS_WITH_ALL, bytes)->load = load;
}

/* ---- modes ---- */

/* The dense sum of n elements by slices, one a rank of the group; and all slices to everybody. */
static void reduceScatter(gsSchedule *s, gsPhaseGroup group, double elements, double width)
{
    double slice = elements * width / members(&s->cluster, group);
    if (s->cluster.over == GS_OVER_NCCL) {
        ring(s, group, 1, slice);
        return;
    }
    post(s, group, slice);
    compute(s, GS_STAGE_EXCHANGE, elements * s->cluster.sum);
}

static void addDense(gsSchedule *s, double elements, double width)
{
    gsSchedule tree = *s;
    double bytes = elements * width;
    reduceScatter(s, GS_WITH_ALL, elements, width);
    gatherSlots(s, GS_WITH_ALL, bytes / s->cluster.ranks);
    if (s->cluster.over != GS_OVER_NCCL)
        return;
    add(&tree, GS_PHASE_TREE, GS_WITH_ALL, GS_STAGE_EXCHANGE)->bytes = bytes;
    if (gsScheduleSeconds(&tree) < gsScheduleSeconds(s))
        *s = tree;
    compute(s, GS_STAGE_EXCHANGE, elements * s->cluster.sum);
}

static void encode(gsSchedule *s, double elements)
{
    compute(s, GS_STAGE_ENCODE, s->cluster.call / 2 + elements * s->cluster.encode);
}

static gsPhase *decode(gsSchedule *s, double elements, double coordinates)
{
    const gsCluster_t *c = &s->cluster;
    compute(s, GS_STAGE_DECODE, c->call / 2);
    return compute(s, GS_STAGE_DECODE, elements * c->write + coordinates * c->decode);
}

/* Two-way: what was decoded is compressed once more, on every rank. */
static void secondHalf(gsSchedule *s, const gsSpec *spec, double elements, double kept)
{
    if (!spec->twoway)
        return;
    encode(s, elements);
    decode(s, elements, kept);
}

static void addFlat(gsSchedule *s, const gsSpec *spec, double kept)
{
    double elements = (double)spec->count;
    encode(s, elements);
    if (gsSpecIsExact(spec))
        postExact(s, GS_LOAD_RECORD, recordBytes(spec, 1, kept));
    else
        gatherSlots(s, GS_WITH_ALL, (double)spec->slotBytes);
    decode(s, elements, spec->nranks * kept);
    secondHalf(s, spec, elements, kept);
}

/* An owner's sum, as it travels to everybody. */
typedef struct {
    double bytes;   /* of its record, the mean, or of its slot */
    double seconds; /* that decoding all owners' takes besides writing the result */
} ownerSum;

/* Coordinates of the sum of all ranks' records, where ranks choose independently of each other. */
static double unionOf(const gsSpec *s, double kept)
{
    double n = (double)s->count;
    if (s->layout == GS_LAYOUT_MASK || s->layout == GS_LAYOUT_ALL || n == 0)
        return kept;
    return n * -expm1(s->nranks * log1p(-fmin(kept / n, 1 - 1e-12)));
}

/* Lossless: at full precision by coordinate, or all of the owner's part where that is shorter. */
static ownerSum losslessSum(const gsCluster_t *c, const gsSpec *s, double kept, double partSlots)
{
    gsSpec sum = *s;
    double share = 1.0 / s->nranks, n = (double)s->count, united = unionOf(s, kept);
    double slots = gsSpecIsExact(s) ? united * share : fmin(partSlots * s->nranks, n * share);
    sum.value = s->wide ? GS_VALUE_F64 : GS_VALUE_F32;
    sum.layout = GS_LAYOUT_GLOBAL;
    sum.aux = gsValueBits(sum.value, 0);
    sum.pool = 0;
    if (slots * (sum.aux + 12) < n * share * sum.aux) /* 12 bits an index */
        return (ownerSum){recordBytes(&sum, share, slots), united * c->decode};
    sum.layout = GS_LAYOUT_ALL;
    return (ownerSum){recordBytes(&sum, share, n * share), n * c->write};
}

static ownerSum compressedSum(const gsCluster_t *c, const gsSpec *s, double kept)
{
    double share = 1.0 / s->nranks, each = kept * share;
    double slots = s->layout != GS_LAYOUT_GLOBAL || gsSpecIsExact(s) ? each : 1.25 * each + 6 * sqrt(each) + 1;
    return (ownerSum){recordBytes(s, share, slots), kept * c->decode};
}

static void addOwner(gsSchedule *s, const gsSpec *spec, double kept)
{
    double elements = (double)spec->count, share = 1.0 / spec->nranks, room = (double)spec->capacity * share;
    double partSlots = fmin(elements * share, spec->layout == GS_LAYOUT_GLOBAL ? 1.5 * room + 6 * sqrt(room) : room);
    ownerSum sum =
        spec->twoway ? compressedSum(&s->cluster, spec, kept) : losslessSum(&s->cluster, spec, kept, partSlots);
    encode(s, elements);
    if (gsSpecIsExact(spec))
        postExact(s, GS_LOAD_TO_OWNER, recordBytes(spec, share, kept * share));
    else
        post(s, GS_WITH_ALL, recordBytes(spec, share, partSlots));
    decode(s, elements * share, kept)->load = GS_LOAD_OF_OWNER;
    encode(s, elements * share);
    if (gsSpecIsExact(spec))
        postExact(s, GS_LOAD_OF_OWNER, sum.bytes);
    else
        gatherSlots(s, GS_WITH_ALL, sum.bytes);
    decode(s, elements, 0)->seconds += sum.seconds;
}

static void addHierarchical(gsSchedule *s, const gsSpec *spec, double kept, double width)
{
    double slice = (double)spec->count;
    reduceScatter(s, GS_WITH_NODE, slice * s->cluster.ranksPerNode, width);
    encode(s, slice);
    gatherSlots(s, GS_WITH_PEERS, (double)spec->slotBytes);
    decode(s, slice, spec->nranks * kept);
    secondHalf(s, spec, slice, kept);
    gatherSlots(s, GS_WITH_NODE, slice * width);
}

/* ---- what is possible ---- */

/* NULL, or why not. */
static const char *refusal(const gsSpec *spec, const gsCluster_t *c, gsMode_t mode)
{
    if (mode == GS_MODE_DENSE)
        return spec->momentum > 0 ? "the recipe holds the momentum, which a dense sum would lose" : NULL;
    if (spec->select == GS_SELECT_DENSE)
        return "the recipe is dense, or GS_DISABLE is set";
    if (mode != GS_MODE_HIERARCHICAL)
        return NULL;
    if (c->ranksPerNode == 1 || c->ranks == c->ranksPerNode)
        return "there are not several nodes with several ranks each";
    return c->ranks % c->ranksPerNode ? "the nodes have not as many ranks each" : gsHierarchyRefusal(spec);
}

const char *gsPlanSchedule(const gsReducerConfig_t *config, const gsCluster_t *cluster, gsMode_t mode,
                           gsSchedule *schedule)
{
    gsSpec whole, spec;
    *schedule = (gsSchedule){.cluster = *cluster};
    if (gsSpecMake(config, 0, cluster->ranks, 0, &whole) != GS_SUCCESS)
        return gsGetLastError();
    const char *reason = refusal(&whole, cluster, mode);
    double width = (double)gsTypeWidth(whole.type);
    if (!reason && mode == GS_MODE_DENSE)
        addDense(schedule, (double)whole.count, width);
    if (reason || mode == GS_MODE_DENSE)
        return reason;
    if (specInMode(config, cluster, mode, &spec) != GS_SUCCESS)
        return gsGetLastError();
    schedule->recordSpread = recordSpread(&spec);
    schedule->ownerSpread = ownerSpread(&spec);
    schedule->ownerBlocks = fmax(1, spec.blocks) / spec.nranks;
    if (mode == GS_MODE_HIERARCHICAL)
        addHierarchical(schedule, &spec, keptOf(&spec), width);
    else if (mode >= GS_MODE_OWNER)
        addOwner(schedule, &spec, keptOf(&spec));
    else
        addFlat(schedule, &spec, keptOf(&spec));
    return NULL;
}

/* ---- the choice ---- */

static double densityOf(const gsSpec *s)
{
    return s->select == GS_SELECT_DENSE || s->count == 0 ? 1 : keptOf(s) / (double)s->count;
}

/* Where a flat all-gather sends as much as a dense ring; 0 where there is no recipe to speak of. */
static double breakEvenOf(const gsSpec *s)
{
    double kept = keptOf(s);
    if (s->select == GS_SELECT_DENSE || kept == 0)
        return 0;
    return 2.0 * (double)gsTypeWidth(s->type) * kept / (s->nranks * recordBytes(s, 1, kept));
}

gsResult_t gsPlanChoose(const gsReducerConfig_t *config, const gsCluster_t *cluster, gsPlan_t *plan)
{
    gsCluster_t whole;
    gsSpec spec;
    if (!plan)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "plan is NULL; expected a place for the plan");
    GS_CHECK(settle(config, cluster, &whole, &spec));
    *plan = (gsPlan_t){.mode = GS_MODE_DENSE, .density = densityOf(&spec), .breakEven = breakEvenOf(&spec)};
    for (int mode = 0; mode < GS_MODES; mode++) {
        gsSchedule schedule;
        plan->seconds[mode] = -1;
        if (gsPlanSchedule(config, &whole, (gsMode_t)mode, &schedule))
            continue;
        plan->seconds[mode] = gsScheduleSeconds(&schedule);
        plan->bytes[mode] = gsScheduleBytes(&schedule);
        plan->nodeBytes[mode] = gsScheduleNodeBytes(&schedule);
        if (plan->seconds[plan->mode] < 0 || plan->seconds[mode] < plan->seconds[plan->mode])
            plan->mode = (gsMode_t)mode;
    }
    return GS_SUCCESS;
}

/* ---- exchange=auto ---- */

/* What the communicator can do, and on a device only what graphs can capture. */
static int isOffered(gsComm_t comm, const gsNodes *nodes, gsMode_t mode)
{
    if (mode == GS_MODE_EXACT || mode == GS_MODE_OWNER_EXACT)
        return !comm->backend->onDevice;
    return mode != GS_MODE_HIERARCHICAL || (nodes->even && comm->transport->split);
}

/* "capacity 1.2 ms, exact -, ..." */
static void listSeconds(const gsPlan_t *plan, char *text, size_t room)
{
    size_t at = 0;
    for (int mode = 0; mode < GS_MODES && at < room; mode++) {
        const char *name = gsGetModeName((gsMode_t)mode), *comma = mode ? ", " : "";
        at += (size_t)(plan->seconds[mode] < 0
                           ? snprintf(text + at, room - at, "%s%s -", comma, name)
                           : snprintf(text + at, room - at, "%s%s %.4g ms", comma, name, 1e3 * plan->seconds[mode]));
    }
}

static gsResult_t choose(gsComm_t comm, const gsReducerConfig_t *config, gsMode_t *mode)
{
    gsCluster_t cluster = comm->known;
    gsNodes nodes;
    gsPlan_t plan;
    char seconds[200];
    GS_CHECK(gsMeasureOnce(comm, config, &cluster));
    GS_CHECK(gsFindNodes(comm, &nodes));
    GS_CHECK(gsPlanChoose(config, &cluster, &plan));
    *mode = GS_MODE_CAPACITY; /* possible for every recipe */
    for (int m = 0; m < GS_MODES; m++)
        if (plan.seconds[m] >= 0 && isOffered(comm, &nodes, (gsMode_t)m) && plan.seconds[m] < plan.seconds[*mode])
            *mode = (gsMode_t)m;
    listSeconds(&plan, seconds, sizeof seconds);
    gsLog(GS_LOG_INFO, "rank %d of %d: \"%s\", %llu elements: %s is the fastest; by the model %s", comm->rank,
          comm->nranks, config->recipe, (unsigned long long)config->count, gsGetModeName(*mode), seconds);
    return GS_SUCCESS;
}

gsResult_t gsPlanSettle(gsComm_t comm, const gsReducerConfig_t *config, char **recipe)
{
    gsMode_t mode;
    *recipe = NULL;
    if (!comm->transport->allGatherHost)
        return gsFail(GS_ERROR_UNSUPPORTED,
                      "recipe \"%s\": this communicator moves nothing (gsCommInitStages) to be "
                      "measured; expected another exchange than auto",
                      config->recipe);
    GS_CHECK(choose(comm, config, &mode));
    *recipe = gsRecipeInMode(config->recipe, mode);
    return *recipe ? GS_SUCCESS : gsFail(GS_ERROR_OUT_OF_MEMORY, "no memory for a recipe");
}
