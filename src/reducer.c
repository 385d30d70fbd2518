/* Reducers: from a configuration to everything that lives between two calls. */
#include "core.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- configuration -> spec ---- */

static gsResult_t checkConfig(const gsReducerConfig_t *config)
{
    if (!config)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "config is NULL; expected a configuration");
    if (config->size != sizeof *config)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "config->size is %zu; expected %zu: begin with GS_REDUCER_CONFIG_INIT",
                      config->size, sizeof *config);
    if (config->version / 100 != GS_VERSION_CODE / 100)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "config->version is %u; this library is %d", config->version,
                      GS_VERSION_CODE);
    if (config->datatype == GS_FLOAT16 || config->datatype == GS_FLOAT64)
        return gsFail(GS_ERROR_UNSUPPORTED,
                      "config->datatype is %d; this version takes GS_FLOAT32 (7) and GS_BFLOAT16 (9)",
                      config->datatype);
    if (config->datatype != GS_FLOAT32 && config->datatype != GS_BFLOAT16)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "config->datatype is %d; expected GS_FLOAT32 (7) or GS_BFLOAT16 (9)",
                      config->datatype);
    if (!config->recipe)
        return gsFail(GS_ERROR_INVALID_ARGUMENT,
                      "config->recipe is NULL; expected a text such as \"threshold:density=0.01\"");
    if (config->count > (uint64_t)GS_BLOCK * 0xfffffffeu)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "config->count is %llu; expected at most 4096 (2^32 - 2)",
                      (unsigned long long)config->count);
    if (config->cpuThreads < 0 || config->cpuThreads > 1024)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "config->cpuThreads is %d; expected 0 (default) to 1024",
                      config->cpuThreads);
    if (config->reserved)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "config->reserved is %d; expected 0", config->reserved);
    if (!config->allocate != !config->release)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "config has one of allocate and release; expected both or none");
    return GS_SUCCESS;
}

/* Room for the kept coordinates of one call; see the header for the default's derivation. */
static double capacityOf(const gsSpec *s)
{
    double n = (double)s->count, expected = s->density * n, room;
    if (s->select == GS_SELECT_TOPK)
        return (double)gsTopkTotal(s->k, s->count);
    room = s->capacityShare > 0 ? ceil(s->capacityShare * n) : ceil(1.25 * expected + 6 * sqrt(expected)) + 1;
    if (room < gsRecordGroups(s->value)) /* each group of a thinned record keeps a slot */
        room = gsRecordGroups(s->value);
    return room < n ? room : n;
}

/* Slots are counted in 32 bits, and so are the kept that thinning chooses from: the expected number and six deviations. */
static gsResult_t checkKept(const gsReducerConfig_t *config, const gsSpec *s, double room)
{
    double expected = s->density * (double)s->count, most = room;
    if (s->random && expected + 6 * sqrt(expected) > most)
        most = expected + 6 * sqrt(expected);
    if (most <= (double)GS_RECORD_MAX_KEPT)
        return GS_SUCCESS;
    return gsFail(
        GS_ERROR_INVALID_RECIPE,
        "recipe \"%s\" with count %llu keeps up to %.0f coordinates; expected at most 4294967295: lower the density",
        config->recipe, (unsigned long long)config->count, most);
}

/* FNV-1a over the fields that ranks must share. */
static uint64_t configHash(const gsSpec *s)
{
    const uint64_t fields[] = {
        GS_RECORD_VERSION, s->count,  s->seed,  s->capacity, s->target,      s->nranks,   s->type,
        s->select,         s->layout, s->value, s->k,        gsBits(s->tau), s->bypassed, gsBits((float)s->density)};
    const unsigned char *bytes = (const unsigned char *)fields;
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < sizeof fields; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

static void setSizes(gsSpec *s)
{
    uint64_t slots[2] = {s->capacity, 0};
    s->slotBytes = gsRecordLayout(s->layout, s->value, s->blocks, slots).bytes;
    if (s->value == GS_VALUE_SHARED) /* a second group's sections may each be padded to 16 */
        s->slotBytes += 4 * GS_RECORD_ALIGN;
}

static gsResult_t makeSpec(const gsReducerConfig_t *config, int rank, int nranks, gsSpec *spec)
{
    memset(spec, 0, sizeof *spec); /* padding too: it travels by value */
    spec->rank = (uint32_t)rank;   /* first: cleaning up after a refusal divides by nranks */
    spec->nranks = (uint32_t)nranks;
    GS_CHECK(checkConfig(config));
    GS_CHECK(gsRecipeParse(config->recipe, spec));
    if (strcmp(gsParamText("GS_DISABLE", "0"), "1") == 0 && spec->select != GS_SELECT_DENSE) {
        GS_CHECK(gsRecipeParse("dense", spec));
        spec->bypassed = 1;
    }
    spec->count = config->count;
    spec->seed = config->seed;
    spec->type = config->datatype;
    spec->blocks = (uint32_t)((config->count + GS_BLOCK - 1) / GS_BLOCK);
    if (spec->select != GS_SELECT_DENSE) {
        double room = capacityOf(spec);
        GS_CHECK(checkKept(config, spec, room));
        spec->capacity = (uint64_t)room;
        spec->target = (uint64_t)ceil(spec->density * (double)spec->count);
        setSizes(spec);
    }
    spec->configHash = configHash(spec);
    return GS_SUCCESS;
}

/* ---- memory ---- */

typedef enum { STATE, WIRE, SCRATCH } memoryKind;

/* Every allocation of a reducer, in one list: what is at `place`, and its bytes. */
typedef struct {
    void **place;
    size_t bytes;
    memoryKind kind;
} allocation;

enum { MAX_ALLOCATIONS = 11 };

static int listAllocations(struct gsReducer *r, allocation list[MAX_ALLOCATIONS])
{
    const gsSpec *s = &r->spec;
    size_t blocks = s->blocks, groups = (size_t)gsRecordGroups(s->value);
    size_t padded = blocks * GS_BLOCK * sizeof(float);
    int n = 0;
    list[n++] = (allocation){(void **)&r->state, sizeof(gsState), STATE};
    if (s->select == GS_SELECT_DENSE) { /* slices of all ranks, then their sums */
        size_t sliceBytes = gsSliceElements(s) * gsTypeBytes((gsDataType_t)s->type);
        list[n++] = (allocation){(void **)&r->recvRecords, 2 * sliceBytes * s->nranks, WIRE};
        return n;
    }
    if (s->feedback) {
        list[n++] = (allocation){(void **)&r->residual[0], padded, STATE};
        list[n++] = (allocation){(void **)&r->residual[1], padded, STATE};
    }
    list[n++] = (allocation){(void **)&r->keptBits, blocks * GS_BLOCK_WORDS * sizeof(uint32_t), SCRATCH};
    list[n++] = (allocation){(void **)&r->blockKept, groups * blocks * sizeof(uint32_t), SCRATCH};
    list[n++] = (allocation){(void **)&r->blockOffset, groups * (blocks + 1) * sizeof(uint32_t), SCRATCH};
    if (s->select == GS_SELECT_GSPAR) {
        list[n++] = (allocation){(void **)&r->blockSum, blocks * sizeof(double), SCRATCH};
        list[n++] = (allocation){(void **)&r->blockBelow, blocks * sizeof(uint32_t), SCRATCH};
    }
    if (s->select == GS_SELECT_THRESHOLD)
        list[n++] = (allocation){(void **)&r->histogram, GS_HISTOGRAM_BINS * sizeof(uint32_t), SCRATCH};
    list[n++] = (allocation){(void **)&r->sendRecord, s->slotBytes, WIRE};
    list[n++] = (allocation){(void **)&r->recvRecords, s->slotBytes * s->nranks, WIRE};
    return n;
}

gsResult_t gsReducerGetMemory(const gsReducerConfig_t *config, int nranks, gsMemory_t *memory)
{
    struct gsReducer r = {0};
    allocation list[MAX_ALLOCATIONS];
    uint64_t bytes[3] = {0};
    if (!memory)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "memory is NULL; expected a place for the figures");
    if (nranks < 1)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "nranks is %d; expected 1 or more", nranks);
    GS_CHECK(makeSpec(config, 0, nranks, &r.spec));
    int n = listAllocations(&r, list);
    for (int i = 0; i < n; i++)
        bytes[list[i].kind] += list[i].bytes;
    *memory = (gsMemory_t){.stateBytes = bytes[STATE], .wireBytes = bytes[WIRE], .scratchBytes = bytes[SCRATCH]};
    return GS_SUCCESS;
}

static gsResult_t allocateOne(gsReducer_t r, const allocation *a)
{
    if (a->bytes == 0)
        return GS_SUCCESS;
    if (r->allocateBytes)
        *a->place = r->allocateBytes(a->bytes, r->allocatorContext);
    else
        GS_CHECK(r->comm->backend->allocate(a->place, a->bytes));
    if (!*a->place)
        return gsFail(GS_ERROR_OUT_OF_MEMORY, "no %zu bytes for a reducer of %llu elements", a->bytes,
                      (unsigned long long)r->spec.count);
    return r->comm->backend->fill(*a->place, 0, a->bytes, NULL);
}

static void releaseAll(gsReducer_t r)
{
    allocation list[MAX_ALLOCATIONS];
    int n = listAllocations(r, list);
    for (int i = 0; i < n; i++) {
        if (!*list[i].place)
            continue;
        if (r->releaseBytes)
            r->releaseBytes(*list[i].place, r->allocatorContext);
        else
            r->comm->backend->release(*list[i].place);
        *list[i].place = NULL;
    }
}

static gsResult_t allocateAll(gsReducer_t r)
{
    allocation list[MAX_ALLOCATIONS];
    int n = listAllocations(r, list);
    for (int i = 0; i < n; i++)
        GS_CHECK(allocateOne(r, &list[i]));
    return GS_SUCCESS;
}

/* ---- agreement: every rank tells what it was given ---- */

typedef struct {
    uint64_t result; /* of this rank's own preparations */
    uint64_t configHash, count, type, seed;
} agreement;

static gsResult_t compare(gsReducer_t r, const agreement *all)
{
    const agreement *own = &all[r->comm->rank];
    for (int i = 0; i < r->comm->nranks; i++) {
        const agreement *other = &all[i];
        if (other->result != GS_SUCCESS)
            return gsFail(GS_ERROR_MISMATCH, "rank %d could not make its reducer (%s)", i,
                          gsGetErrorString((gsResult_t)other->result));
        if (other->count != own->count)
            return gsFail(GS_ERROR_MISMATCH, "rank %d has count %llu, rank %d has %llu", i,
                          (unsigned long long)other->count, r->comm->rank, (unsigned long long)own->count);
        if (other->type != own->type)
            return gsFail(GS_ERROR_MISMATCH, "rank %d has datatype %llu, rank %d has %llu", i,
                          (unsigned long long)other->type, r->comm->rank, (unsigned long long)own->type);
        if (other->seed != own->seed)
            return gsFail(GS_ERROR_MISMATCH, "rank %d has seed %llu, rank %d has %llu", i,
                          (unsigned long long)other->seed, r->comm->rank, (unsigned long long)own->seed);
        if (other->configHash != own->configHash)
            return gsFail(GS_ERROR_MISMATCH, "rank %d has another recipe (or GS_DISABLE) than rank %d", i,
                          r->comm->rank);
    }
    return GS_SUCCESS;
}

/* Takes part even where this rank has failed, so that the others hear of it now and not at their deadline. */
static gsResult_t agree(gsReducer_t r, gsResult_t prepared)
{
    if (!r->comm->transport->allGatherHost)
        return prepared;
    agreement own = {prepared, r->spec.configHash, r->spec.count, r->spec.type, r->spec.seed};
    agreement *all = calloc((size_t)r->comm->nranks, sizeof *all);
    if (!all)
        return gsFail(GS_ERROR_OUT_OF_MEMORY, "no memory to compare %d configurations", r->comm->nranks);
    char reason[512];
    strncpy(reason, gsGetLastError(), sizeof reason - 1);
    reason[sizeof reason - 1] = 0;
    gsResult_t result = r->comm->transport->allGatherHost(r->comm, &own, all, sizeof own);
    if (prepared != GS_SUCCESS)
        result = gsFail(prepared, "%s", reason);
    else if (result == GS_SUCCESS)
        result = compare(r, all);
    free(all);
    return result;
}

/* ---- life ---- */

/* Fewer blocks than this a thread do not pay: encoding 10 blocks took 14 us on one thread and 19 us on two. */
enum { BLOCKS_PER_THREAD = 16 };

static int64_t defaultThreads(gsComm_t comm, uint32_t blocks)
{
    int64_t share = sysconf(_SC_NPROCESSORS_ONLN) / comm->localRanks, useful = blocks / BLOCKS_PER_THREAD;
    if (share > useful)
        share = useful;
    return share < 1 ? 1 : share;
}

/* The state before the first step. A fixed tau is the state's too: it follows gsReducerScale. */
static gsResult_t beginState(gsReducer_t r, const gsCounters *counters, gsStream_t stream)
{
    gsState state;
    memset(&state, 0, sizeof state);
    state.counters = *counters;
    state.tau = r->spec.tau > 0 ? r->spec.tau : 0;
    return r->comm->backend->put(r->state, &state, sizeof state, stream);
}

static gsResult_t prepare(gsReducer_t r, const gsReducerConfig_t *config)
{
    static const gsCounters none;
    int64_t threads;
    GS_CHECK(makeSpec(config, r->comm->rank, r->comm->nranks, &r->spec));
    GS_CHECK(gsParamInt("GS_THREADS", 1, 1024, defaultThreads(r->comm, r->spec.blocks), &threads));
    r->cpuThreads = config->cpuThreads ? config->cpuThreads : (int)threads;
    r->allocateBytes = config->allocate;
    r->releaseBytes = config->release;
    r->allocatorContext = config->allocatorContext;
    if (r->comm->backend->prepare)
        GS_CHECK(r->comm->backend->prepare(r));
    GS_CHECK(allocateAll(r));
    return beginState(r, &none, NULL);
}

gsResult_t gsReducerCreate(gsReducer_t *reducer, gsComm_t comm, const gsReducerConfig_t *config)
{
    if (!reducer)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "reducer is NULL; expected a place for the reducer");
    *reducer = NULL;
    if (!comm)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "comm is NULL; expected a communicator");
    gsReducer_t r = calloc(1, sizeof *r);
    if (!r)
        return gsFail(GS_ERROR_OUT_OF_MEMORY, "no %zu bytes for a reducer", sizeof *r);
    r->comm = comm;
    gsResult_t result = agree(r, prepare(r, config));
    if (result != GS_SUCCESS) {
        releaseAll(r);
        free(r);
        return result;
    }
    comm->reducers++;
    gsLog(GS_LOG_INFO, "rank %d of %d: reducer \"%s\", %llu elements, capacity %llu coordinates, slot %llu bytes",
          comm->rank, comm->nranks, config->recipe, (unsigned long long)r->spec.count,
          (unsigned long long)r->spec.capacity, (unsigned long long)r->spec.slotBytes);
    *reducer = r;
    return GS_SUCCESS;
}

static gsResult_t checkReducer(gsReducer_t r)
{
    return r ? GS_SUCCESS : gsFail(GS_ERROR_INVALID_ARGUMENT, "reducer is NULL; expected a reducer");
}

gsResult_t gsReducerDestroy(gsReducer_t r)
{
    gsStats_t stats;
    if (!r)
        return GS_SUCCESS;
    if (gsReducerGetStats(r, &stats) == GS_SUCCESS)
        gsLog(GS_LOG_INFO,
              "rank %d: %llu calls, %llu compressed, %llu dense, %llu bypassed, %llu failed, %llu bytes left",
              r->comm->rank, (unsigned long long)stats.calls, (unsigned long long)stats.compressed,
              (unsigned long long)stats.dense, (unsigned long long)stats.bypassed, (unsigned long long)stats.failed,
              (unsigned long long)stats.wireBytes);
    r->comm->reducers--;
    releaseAll(r);
    free(r);
    return GS_SUCCESS;
}

gsResult_t gsReducerReset(gsReducer_t r, gsStream_t stream)
{
    GS_CHECK(checkReducer(r));
    const gsBackend *backend = r->comm->backend;
    gsState state;
    GS_CHECK(backend->get(&state, r->state, sizeof state, stream));
    for (int i = 0; i < 2 && r->residual[i]; i++)
        GS_CHECK(backend->fill(r->residual[i], 0, (size_t)r->spec.blocks * GS_BLOCK * sizeof(float), stream));
    r->encoded = 0;
    return beginState(r, &state.counters, stream);
}

gsResult_t gsReducerScale(gsReducer_t r, float factor, gsStream_t stream)
{
    GS_CHECK(checkReducer(r));
    if (!gsIsFinite(factor) || !(factor > 0))
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "factor is %g; expected a finite number above 0", (double)factor);
    return r->comm->backend->scale(r, factor, stream);
}

gsResult_t gsReducerGetAsyncError(gsReducer_t r, gsResult_t *asyncError)
{
    static const uint32_t none[2] = {GS_FAULT_NONE, 0}; /* fault, faultRank */
    gsState state;
    GS_CHECK(checkReducer(r));
    if (!asyncError)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "asyncError is NULL; expected a place for the error");
    GS_CHECK(r->comm->backend->get(&state, r->state, sizeof state, NULL));
    *asyncError = gsVerdictError(&state);
    if (*asyncError == GS_SUCCESS)
        return GS_SUCCESS;
    r->stats.failed++;
    return r->comm->backend->put(&r->state->fault, none, sizeof none, NULL);
}

/* Bytes that leave a rank in one exchange. */
static uint64_t wireBytesPerCall(const gsReducer_t r)
{
    const gsSpec *s = &r->spec;
    uint64_t others = s->nranks - 1;
    if (s->select != GS_SELECT_DENSE)
        return others * s->slotBytes;
    return 2 * others * s->count * gsTypeBytes((gsDataType_t)s->type) / s->nranks;
}

gsResult_t gsReducerGetStats(gsReducer_t r, gsStats_t *stats)
{
    gsState state;
    GS_CHECK(checkReducer(r));
    if (!stats)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "stats is NULL; expected a place for the statistics");
    GS_CHECK(r->comm->backend->get(&state, r->state, sizeof state, NULL));
    const gsCounters *n = &state.counters;
    *stats = r->stats;
    stats->calls = n->calls;
    stats->compressed = r->spec.select == GS_SELECT_DENSE ? 0 : n->calls;
    stats->bypassed = r->spec.bypassed ? n->calls : 0;
    stats->dense = n->calls - stats->compressed - stats->bypassed;
    stats->nonFinite = n->nonFinite;
    stats->thinned = n->thinned;
    stats->overflowed = n->overflowed;
    stats->lastKept = n->lastKept;
    stats->lastSent = n->lastSent;
    stats->keptTotal = n->keptTotal;
    stats->sentTotal = n->sentTotal;
    stats->payloadBytes = n->payloadBytes;
    stats->wireBytes = n->calls * wireBytesPerCall(r);
    stats->tau = state.tau;
    return GS_SUCCESS;
}

gsResult_t gsReducerGetSlotBytes(gsReducer_t r, size_t *slotBytes)
{
    GS_CHECK(checkReducer(r));
    if (!slotBytes)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "slotBytes is NULL; expected a place for the bytes");
    *slotBytes = r->spec.slotBytes;
    return GS_SUCCESS;
}
