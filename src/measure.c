/*
 * What a communicator's own calls take: latency and bandwidth by its all-gathers, solved for in the closed forms of phases.c, and the
 * codec's speed by its stages, on all ranks at once, as they share processors and memory in a call. The slowest rank's figures are
 * everybody's.
 */
#include "plan.h"
#include "transport/wait.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    RUNS_LEAST = 2,
    RUNS_MOST = 10,
    SHORT_BYTES = 16,
    LONG_BYTES_LEAST = 1 << 14,
    ALL_BYTES_MOST = 1 << 25, /* of all ranks' messages together */
    ELEMENTS_MOST = 1 << 23,  /* that the codec is timed on, by all ranks that share processors */
    ELEMENTS_LEAST = 1 << 15,
    RECORDS = 3 /* summed at once */
};
static const double longEnough = 10e-3; /* a message is long that takes so many seconds */
static const double runSeconds = 40e-3; /* time for all runs of one kind */

/* ---- time ---- */

/* One call, finished on a device too. */
typedef gsResult_t (*timedCall)(void *context);

static gsResult_t timeOnce(gsComm_t comm, timedCall call, void *context, double *seconds)
{
    int64_t begin = gsWaitNow();
    GS_CHECK(call(context));
    if (comm->backend->onDevice)
        GS_CHECK(comm->transport->synchronize(comm, NULL));
    *seconds = 1e-9 * (double)(gsWaitNow() - begin);
    return GS_SUCCESS;
}

/* The shortest of so many runs. */
static gsResult_t timeRuns(gsComm_t comm, timedCall call, void *context, int runs, double *shortest)
{
    *shortest = INFINITY;
    for (int i = 0; i < runs; i++) {
        double seconds;
        GS_CHECK(timeOnce(comm, call, context, &seconds));
        *shortest = fmin(*shortest, seconds);
    }
    return GS_SUCCESS;
}

static int runsFor(double seconds)
{
    double runs = runSeconds / seconds;
    return runs < RUNS_LEAST ? RUNS_LEAST : runs > RUNS_MOST ? RUNS_MOST : (int)runs;
}

/* ---- what ranks share ---- */

/* The largest of all ranks' numbers, on every rank. */
static gsResult_t shareLargest(gsComm_t comm, double *values, int n)
{
    size_t bytes = (size_t)n * sizeof *values;
    double *all = malloc((size_t)comm->nranks * bytes);
    if (!all)
        return gsFail(GS_ERROR_OUT_OF_MEMORY, "no memory for the figures of %d ranks", comm->nranks);
    gsResult_t result = comm->transport->allGatherHost(comm, values, all, bytes);
    for (int i = 0; i < n * comm->nranks && result == GS_SUCCESS; i++)
        values[i % n] = fmax(values[i % n], all[i]);
    free(all);
    return result;
}

/* Fails on all ranks if it has on one. */
static gsResult_t shareResult(gsComm_t comm, gsResult_t own)
{
    double worst = own;
    char reason[512];
    strncpy(reason, gsGetLastError(), sizeof reason - 1);
    reason[sizeof reason - 1] = 0;
    gsResult_t shared = shareLargest(comm, &worst, 1);
    if (own != GS_SUCCESS)
        return gsFail(own, "%s", reason);
    if (shared == GS_SUCCESS && worst > 0)
        return gsFail(GS_ERROR_MISMATCH, "another rank cannot be measured (%s)", gsGetErrorString((gsResult_t)worst));
    return shared;
}

/* ---- links ---- */

/* An all-gather to be timed. */
typedef struct {
    gsComm_t comm;
    void *send, *recv;
    size_t bytes;
} gathering;

static gsResult_t gather(void *context)
{
    const gathering *g = context;
    return g->comm->transport->allGather(g->comm, g->send, g->recv, g->bytes, NULL);
}

/* Seconds of an all-gather of so many bytes, the same figure on all ranks of the whole communicator. */
static gsResult_t timeGather(gathering *g, size_t bytes, double *seconds)
{
    gsComm_t whole = gsCommWhole(g->comm);
    g->bytes = bytes;
    GS_CHECK(timeRuns(whole, gather, g, RUNS_LEAST, seconds));
    GS_CHECK(shareLargest(whole, seconds, 1));
    if (*seconds > longEnough)
        return GS_SUCCESS;
    GS_CHECK(timeRuns(whole, gather, g, runsFor(*seconds), seconds));
    return shareLargest(whole, seconds, 1);
}

/* All-gathers of a short message and of a long one. */
typedef struct {
    double shortSeconds, longSeconds;
    size_t longBytes;
} gathers;

static gsResult_t timeGathers(gathering *g, size_t most, gathers *found)
{
    found->longBytes = LONG_BYTES_LEAST;
    GS_CHECK(timeGather(g, SHORT_BYTES, &found->shortSeconds));
    GS_CHECK(timeGather(g, found->longBytes, &found->longSeconds));
    while (found->longSeconds < longEnough && 4 * found->longBytes <= most) {
        found->longBytes *= 4;
        GS_CHECK(timeGather(g, found->longBytes, &found->longSeconds));
    }
    return GS_SUCCESS;
}

static gsResult_t measureGathers(gsComm_t comm, gathers *found)
{
    const gsBackend *backend = comm->backend;
    size_t most = ALL_BYTES_MOST / (size_t)comm->nranks;
    most = most > LONG_BYTES_LEAST ? most : LONG_BYTES_LEAST;
    gathering g = {.comm = comm};
    gsResult_t result = backend->allocate(&g.send, most);
    if (result == GS_SUCCESS)
        result = backend->allocate(&g.recv, most * (size_t)comm->nranks);
    if (result == GS_SUCCESS)
        result = backend->fill(g.send, 0, most, NULL);
    result = shareResult(gsCommWhole(comm), result);
    if (result == GS_SUCCESS)
        result = timeGathers(&g, most, found);
    backend->release(g.send);
    backend->release(g.recv);
    return result;
}

/* Chooses *figure of *c, between these bounds, so that the model's all-gather takes so many seconds. It takes the longer the larger the
 * latency and, with `falls`, the smaller the bandwidth. */
static void solve(const gsCluster_t *c, gsPhaseGroup group, double bytes, double seconds, double *figure, int falls)
{
    double low = falls ? 1e3 : 1e-9, high = falls ? 1e15 : 1e3;
    for (int i = 0; i < 100; i++) {
        *figure = sqrt(low * high);
        if ((gsGatherSeconds(c, group, bytes) < seconds) == falls)
            high = *figure;
        else
            low = *figure;
    }
}

/* One level of links from the all-gathers that go over it. */
static void solveLinks(gsCluster_t *c, gsPhaseGroup group, const gathers *found, double *latency, double *bandwidth)
{
    *bandwidth = 1e15;
    solve(c, group, SHORT_BYTES, found->shortSeconds, latency, 0);
    solve(c, group, (double)found->longBytes, found->longSeconds, bandwidth, 1);
}

/* Nodes that differ in size count as if their ranks were shared out evenly. */
static gsResult_t findShape(gsComm_t comm, gsCluster_t *c, gsNodes *nodes)
{
    GS_CHECK(gsFindNodes(comm, nodes));
    c->ranks = comm->nranks;
    c->ranksPerNode = (comm->nranks + nodes->nodes - 1) / nodes->nodes;
    c->over = comm->backend->onDevice                         ? GS_OVER_NCCL
              : strcmp(comm->transport->name, "threads") == 0 ? GS_OVER_THREADS
                                                              : GS_OVER_MPI;
    return GS_SUCCESS;
}

/* The nodes' own all-gathers, all at once; without a reply where a node has no ranks of its own to exchange with. */
static gsResult_t measureInside(gsComm_t comm, const gsNodes *nodes, gathers *found, int *there)
{
    *there = nodes->nodes == 1 || (nodes->even && nodes->ranks > 1 && comm->transport->split);
    if (!*there)
        return GS_SUCCESS;
    if (nodes->nodes > 1)
        GS_CHECK(gsCommDivide(comm, nodes));
    return measureGathers(nodes->nodes > 1 ? comm->node : comm, found);
}

static gsResult_t measureLinks(gsComm_t comm, gsCluster_t *c)
{
    enum { ROUNDS = 3 }; /* each level's figures enter into the other's */
    gsNodes nodes;
    gathers inside, whole;
    int there, several;
    GS_CHECK(findShape(comm, c, &nodes));
    c->latency = c->nodeLatency = c->message = 1e-9;
    c->bandwidth = c->nodeBandwidth = 1e15;
    several = nodes.nodes > 1;
    if (c->ranks == 1)
        return GS_SUCCESS;
    GS_CHECK(measureInside(comm, &nodes, &inside, &there));
    if (several)
        GS_CHECK(measureGathers(comm, &whole));
    c->message = fmin(1e-6, (several ? whole : inside).shortSeconds / (4 * c->ranks));
    for (int round = 0; round < ROUNDS; round++) {
        if (several)
            solveLinks(c, GS_WITH_ALL, &whole, &c->latency, &c->bandwidth);
        if (there)
            solveLinks(c, GS_WITH_NODE, &inside, &c->nodeLatency, &c->nodeBandwidth);
    }
    return GS_SUCCESS;
}

/* ---- the codec ---- */

/* A stage to be timed: nothing is committed, so that it may be run again. */
typedef struct {
    gsReducer_t reducer;
    void *gradient, *result;
    uint8_t *records;
} stage;

static gsResult_t encode(void *context)
{
    const stage *s = context;
    GS_CHECK(s->reducer->comm->backend->select(s->reducer, s->gradient, NULL));
    return s->reducer->comm->backend->pack(s->reducer, s->gradient, s->records, NULL);
}

static gsResult_t decode(void *context)
{
    const stage *s = context;
    GS_CHECK(s->reducer->comm->backend->validate(s->reducer, s->records, NULL));
    return s->reducer->comm->backend->accumulate(s->reducer, s->records, s->result, GS_SUM, NULL);
}

/* Slices as sumBySlices of exchange.c has them: as many elements are added as the gradient has. */
static gsResult_t sum(void *context)
{
    const stage *s = context;
    gsReducer_t r = s->reducer;
    const gsBackend *backend = r->comm->backend;
    uint64_t slice = gsSliceElements(&r->spec, r->spec.count);
    gsDataType_t type = (gsDataType_t)r->spec.type;
    uint8_t *sums = r->recvRecords + slice * r->spec.nranks * gsTypeBytes(type);
    if (backend->sumSlices)
        GS_CHECK(backend->sumSlices(r, type, r->recvRecords, r->spec.nranks, slice, sums, slice, GS_SUM, NULL));
    return backend->finishDense(r, sums, s->result, NULL);
}

/* What stages take, in seconds a run. */
typedef struct {
    double encode, decode;
    double kept; /* coordinates of a record */
} stageTimes;

/* The reducers of so many ranks that move nothing. */
typedef struct {
    gsComm_t comms[RECORDS];
    gsReducer_t reducers[RECORDS];
    int ranks;
} stageRanks;

static void endStages(stageRanks *s)
{
    for (int r = 0; r < s->ranks; r++) {
        gsReducerDestroy(s->reducers[r]);
        gsCommDestroy(s->comms[r]);
    }
}

static gsResult_t beginStages(gsComm_t comm, const gsReducerConfig_t *config, int ranks, stageRanks *s)
{
    gsCommConfig_t commConfig = GS_COMM_CONFIG_INIT;
    commConfig.commName = "gsCommMeasure";
    *s = (stageRanks){.ranks = ranks};
    for (int r = 0; r < ranks; r++) {
        GS_CHECK(gsCommMake(&s->comms[r], &gsNoTransport, comm->backend, r, ranks, &commConfig));
        s->comms[r]->localRanks = comm->localRanks;
        GS_CHECK(gsReducerMakeStage(&s->reducers[r], s->comms[r], config));
    }
    return GS_SUCCESS;
}

/* One step is committed first: a threshold is found by another way in its first. */
static gsResult_t settleStep(const stage *s)
{
    const gsSpec *spec = &s->reducer->spec;
    GS_CHECK(gsEncode(s->gradient, s->records, spec->count, (gsDataType_t)spec->type, s->reducer, NULL));
    return gsDecode(s->records, s->result, spec->count, (gsDataType_t)spec->type, GS_SUM, s->reducer, NULL);
}

static gsResult_t readKept(const stage *s, double *kept)
{
    gsRecordHeader header;
    GS_CHECK(s->reducer->comm->backend->get(&header, s->records, sizeof header, NULL));
    *kept = (double)header.kept;
    return GS_SUCCESS;
}

static gsResult_t timeStages(gsComm_t comm, stage *s, stageRanks *ranks, stageTimes *times)
{
    for (int r = 0; r < ranks->ranks; r++) {
        stage other = *s;
        other.reducer = ranks->reducers[r];
        other.records = s->records + (size_t)r * ranks->reducers[r]->spec.slotBytes;
        if (ranks->ranks == 1)
            GS_CHECK(settleStep(&other));
        GS_CHECK(encode(&other));
    }
    s->reducer = ranks->reducers[0];
    GS_CHECK(readKept(s, &times->kept));
    GS_CHECK(timeRuns(comm, encode, s, RUNS_LEAST, &times->encode));
    GS_CHECK(timeRuns(comm, encode, s, runsFor(times->encode), &times->encode));
    GS_CHECK(timeRuns(comm, decode, s, RUNS_LEAST, &times->decode));
    return timeRuns(comm, decode, s, runsFor(times->decode), &times->decode);
}

/* Decoding sums the records of so many ranks. */
static gsResult_t measureStages(gsComm_t comm, const gsReducerConfig_t *config, stage s, int records, stageTimes *times)
{
    stageRanks ranks;
    void *slots = NULL;
    gsResult_t result = beginStages(comm, config, records, &ranks);
    if (result == GS_SUCCESS)
        result = comm->backend->allocate(&slots, (size_t)records * ranks.reducers[0]->spec.slotBytes);
    s.records = slots;
    if (result == GS_SUCCESS)
        result = timeStages(comm, &s, &ranks, times);
    comm->backend->release(slots);
    endStages(&ranks);
    return result;
}

static gsResult_t measureSum(gsComm_t comm, const gsReducerConfig_t *config, stage s, double *seconds)
{
    gsReducerConfig_t dense = *config;
    stageRanks ranks;
    dense.recipe = "dense";
    gsResult_t result = beginStages(comm, &dense, RECORDS, &ranks);
    s.reducer = ranks.reducers[0];
    if (result == GS_SUCCESS)
        result = timeRuns(comm, sum, &s, RUNS_LEAST, seconds);
    if (result == GS_SUCCESS)
        result = timeRuns(comm, sum, &s, runsFor(*seconds), seconds);
    endStages(&ranks);
    return result;
}

/* Heavy-tailed, as gradients are; the same on all ranks. */
static gsResult_t fillGradient(gsComm_t comm, const gsReducerConfig_t *config, void *gradient)
{
    size_t width = gsTypeBytes(config->datatype);
    char *host = malloc(config->count * width);
    uint64_t state = 1;
    if (!host)
        return gsFail(GS_ERROR_OUT_OF_MEMORY, "no memory for a gradient of %llu elements",
                      (unsigned long long)config->count);
    for (uint64_t i = 0; i < config->count; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        float u = (float)(int32_t)(state >> 32) * 0x1p-31f, x = 1e-3f * u / (1.001f - u * u);
        double wide = x;
        uint16_t half = config->datatype == GS_BFLOAT16 ? gsToBf16(x) : gsToF16(x);
        const void *from = width == 8 ? (const void *)&wide : width == 4 ? (const void *)&x : &half;
        memcpy(host + i * width, from, width);
    }
    gsResult_t result = comm->backend->put(gradient, host, config->count * width, NULL);
    free(host);
    return result;
}

static double atLeast(double least, double value)
{
    return value > least ? value : least;
}

/* From a call of few elements and one of many to the figures. */
static void setCodec(gsCluster_t *c, const stageTimes *least, const stageTimes *one, const stageTimes *several,
                     double n)
{
    c->call = least->encode + least->decode;
    c->encode = atLeast(1e-15, (one->encode - least->encode) / n);
    c->decode = atLeast(1e-15, (several->decode - one->decode) / (RECORDS - 1) / atLeast(1, several->kept));
    c->write = atLeast(1e-15, (one->decode - least->decode - one->kept * c->decode) / n);
    c->sum = atLeast(1e-15, c->sum / n);
}

static gsResult_t measureCodec(gsComm_t comm, const gsReducerConfig_t *config, stage s, gsCluster_t *c)
{
    gsReducerConfig_t part = *config;
    stageTimes one, several, least;
    GS_CHECK(fillGradient(comm, config, s.gradient));
    part.count = GS_BLOCK;
    GS_CHECK(measureStages(comm, &part, s, 1, &least));
    part.count = ELEMENTS_LEAST;
    GS_CHECK(measureStages(comm, &part, s, 1, &one));
    while (2 * part.count <= config->count && one.encode * RUNS_MOST < runSeconds) { /* larger than caches, in time */
        part.count *= 2;
        one.encode *= 2;
    }
    GS_CHECK(measureStages(comm, &part, s, 1, &one));
    GS_CHECK(measureStages(comm, &part, s, RECORDS, &several));
    GS_CHECK(measureSum(comm, &part, s, &c->sum));
    setCodec(c, &least, &one, &several, (double)part.count);
    return GS_SUCCESS;
}

static gsResult_t measureRecipe(gsComm_t comm, const gsReducerConfig_t *config, gsCluster_t *c)
{
    gsReducerConfig_t own = *config;
    stage s = {0};
    own.count = ELEMENTS_MOST / (uint64_t)comm->localRanks;
    own.count = own.count < ELEMENTS_LEAST ? ELEMENTS_LEAST : own.count;
    own.allocate = NULL;
    own.release = NULL;
    size_t bytes = own.count * gsTypeBytes(own.datatype);
    gsResult_t result = comm->backend->allocate(&s.gradient, bytes);
    if (result == GS_SUCCESS)
        result = comm->backend->allocate(&s.result, bytes);
    result = shareResult(comm, result); /* and all begin at once */
    if (result == GS_SUCCESS)
        result = shareResult(comm, measureCodec(comm, &own, s, c));
    comm->backend->release(s.gradient);
    comm->backend->release(s.result);
    return result;
}

/* ---- all of it ---- */

static uint32_t hashText(const char *text)
{
    uint32_t hash = 2166136261u;
    while (*text)
        hash = (hash ^ (unsigned char)*text++) * 16777619u;
    return hash;
}

/* What is compressed, whatever the count, as one number. */
static uint32_t recipeKey(const gsReducerConfig_t *config)
{
    return (hashText(config->recipe) ^ (uint32_t)config->datatype) | 1u;
}

static gsResult_t checkSame(gsComm_t comm, uint32_t key)
{
    double bounds[2] = {key, -(double)key};
    GS_CHECK(shareLargest(comm, bounds, 2));
    if (bounds[0] == -bounds[1])
        return GS_SUCCESS;
    return gsFail(GS_ERROR_MISMATCH, "ranks measure different recipes or types");
}

static gsResult_t checkMeasurable(const gsReducerConfig_t *config)
{
    gsSpec spec;
    GS_CHECK(gsSpecMake(config, 0, 1, 0, &spec));
    GS_CHECK(gsHalfRefuse(config, "a codec is timed in an all-reduce"));
    if (spec.select == GS_SELECT_DENSE)
        return gsFail(GS_ERROR_UNSUPPORTED, "recipe \"%s\" is dense, or GS_DISABLE is set: it has no codec to be timed",
                      config->recipe);
    if (spec.select == GS_SELECT_STEP)
        return gsFail(GS_ERROR_UNSUPPORTED, "recipe \"%s\" depends on iterates: its codec cannot be timed alone",
                      config->recipe);
    return GS_SUCCESS;
}

/* Latencies, bandwidths and the codec's figures, into comm->measured: the slowest rank's. */
static gsResult_t measureAll(gsComm_t comm, const gsReducerConfig_t *config, int links)
{
    gsCluster_t c = comm->measured;
    if (links)
        GS_CHECK(measureLinks(comm, &c));
    GS_CHECK(measureRecipe(comm, config, &c));
    double codec[] = {c.call, c.encode, c.decode, c.write, c.sum};
    GS_CHECK(shareLargest(comm, codec, 5));
    c.call = codec[0];
    c.encode = codec[1];
    c.decode = codec[2];
    c.write = codec[3];
    c.sum = codec[4];
    comm->measured = c;
    comm->measuredFor = recipeKey(config);
    return GS_SUCCESS;
}

static void orElse(double *figure, double measured)
{
    if (*figure == 0)
        *figure = measured;
}

/* What is not known of the cluster from what was measured. */
static void fillFrom(gsCluster_t *c, const gsCluster_t *measured)
{
    c->ranks = measured->ranks;
    c->ranksPerNode = measured->ranksPerNode;
    c->over = measured->over;
    orElse(&c->latency, measured->latency);
    orElse(&c->bandwidth, measured->bandwidth);
    orElse(&c->nodeLatency, measured->nodeLatency);
    orElse(&c->nodeBandwidth, measured->nodeBandwidth);
    orElse(&c->message, measured->message);
    orElse(&c->call, measured->call);
    orElse(&c->encode, measured->encode);
    orElse(&c->decode, measured->decode);
    orElse(&c->write, measured->write);
    orElse(&c->sum, measured->sum);
}

static int isKnown(const gsCluster_t *c)
{
    return c->latency > 0 && c->bandwidth > 0 && c->nodeLatency > 0 && c->nodeBandwidth > 0 && c->message > 0 &&
           c->call > 0 && c->encode > 0 && c->decode > 0 && c->write > 0 && c->sum > 0;
}

gsResult_t gsMeasureOnce(gsComm_t comm, const gsReducerConfig_t *config, gsCluster_t *cluster)
{
    int links = comm->measured.ranks == 0;
    gsNodes nodes;
    if (isKnown(cluster))
        return findShape(comm, cluster, &nodes);
    if (links || comm->measuredFor != recipeKey(config))
        GS_CHECK(measureAll(comm, config, links));
    fillFrom(cluster, &comm->measured);
    return GS_SUCCESS;
}

gsResult_t gsCommMeasure(gsComm_t comm, const gsReducerConfig_t *config, gsCluster_t *cluster)
{
    gsReducerConfig_t standard = GS_REDUCER_CONFIG_INIT;
    standard.recipe = "threshold:density=0.01";
    config = config ? config : &standard;
    if (!comm)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "comm is NULL; expected a communicator");
    if (!comm->transport->allGatherHost)
        return gsFail(GS_ERROR_UNSUPPORTED, "this communicator moves nothing (gsCommInitStages) to be measured");
    gsResult_t result = gsClusterCheck(cluster);
    if (result == GS_SUCCESS)
        result = checkMeasurable(config);
    GS_CHECK(shareResult(comm, result));
    GS_CHECK(checkSame(comm, recipeKey(config)));
    GS_CHECK(measureAll(comm, config, 1));
    fillFrom(cluster, &comm->measured);
    return GS_SUCCESS;
}
