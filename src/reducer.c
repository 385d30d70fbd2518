/* Reducers: everything that lives between two calls, from its allocation to its end. */
#include "range.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- memory ---- */

typedef enum { STATE, WIRE, SCRATCH } memoryKind;

/* Every allocation of a reducer, in one list: what is at `place`, and its bytes. */
typedef struct {
    void **place;
    size_t bytes;
    memoryKind kind;
} allocation;

typedef struct {
    allocation list[40];
    int n;
} allocations;

static void add(allocations *a, void *place, size_t bytes, memoryKind kind)
{
    a->list[a->n++] = (allocation){place, bytes, kind};
}

static void addPair(allocations *a, void *pair[2], size_t bytes)
{
    add(a, &pair[0], bytes, STATE);
    add(a, &pair[1], bytes, STATE);
}

/* Vectors that live from call to call, and the one that does not. */
static void listVectors(struct gsReducer *r, allocations *a)
{
    const gsSpec *s = &r->spec;
    size_t padded = (size_t)s->blocks * GS_BLOCK * gsRealBytes(s);
    if (s->feedback)
        addPair(a, r->residual, padded);
    if (s->momentum > 0.0)
        addPair(a, r->momentum, padded);
    if (gsSpecReadsIterate(s))
        addPair(a, r->previous, padded);
    if (gsSpecAnchors(s))
        add(a, &r->anchor, padded, STATE);
    if (s->trigger == GS_TRIGGER_CHANGE)
        addPair(a, r->before, padded);
    if (s->memory) {
        add(a, &r->memory, padded, STATE);
        add(a, &r->shared, (r->sharedCount + GS_BLOCK - 1) / GS_BLOCK * GS_BLOCK * gsRealBytes(s), STATE);
    }
    for (int p = 0; p < GS_MAX_POOL; p++)
        if (s->pool >> p & 1u &&
            (p == GS_REFERENCE_LAST || p == GS_REFERENCE_EMA || p == GS_REFERENCE_EMA2 || p == GS_REFERENCE_SNAPSHOT))
            add(a, &r->pool[p], padded, STATE);
    if (s->pool >> GS_REFERENCE_WINDOW & 1u)
        add(a, &r->history, s->window * padded, STATE);
    if (gsHasDenseSteps(s) || (gsSpecPrepares(s) && !s->feedback) || (gsSpecHasOwners(s) && s->memory))
        add(a, &r->work, padded, SCRATCH);
}

/* A list's tables, and its gradients where they have to stand one behind the other. */
static void listTables(struct gsReducer *r, allocations *a)
{
    const gsSpec *s = &r->spec;
    int dense = s->select == GS_SELECT_DENSE;
    size_t blocks = (size_t)s->blocks * gsListTables(s), tensors = (size_t)s->tensors * gsListTables(s);
    add(a, &r->list, blocks * sizeof(gsListBlock), SCRATCH);
    add(a, &r->entries, tensors * sizeof(gsRecordSegment), SCRATCH);
    add(a, &r->buffers, tensors * (dense ? 4 : 2) * sizeof(void *), SCRATCH);
    if (dense)
        add(a, &r->gathered, s->count * gsTypeWidth(s->type), WIRE);
}

static void listParts(struct gsReducer *r, allocations *a)
{
    const gsSpec *s = &r->spec;
    size_t blocks = s->blocks, own = (size_t)gsPartBlocks(s, 0) * GS_BLOCK * gsRealBytes(s);
    add(a, &r->partState, s->nranks * sizeof(gsState), SCRATCH);
    add(a, &r->partOffset, (size_t)gsRecordGroups(s->value) * (blocks + s->nranks) * sizeof(uint32_t), SCRATCH);
    add(a, &r->ownSum, own, SCRATCH);
    if (s->twoway || (s->half && s->memory))
        add(a, &r->ownResult, own, SCRATCH);
    else if (gsSpecRemembers(s))
        add(a, &r->sum, blocks * GS_BLOCK * gsRealBytes(s), SCRATCH);
}

/* A dense half's slices and sum, or the gathered ones; and what a scattered sum agrees by. */
static void listHalf(struct gsReducer *r, allocations *a)
{
    const gsSpec *s = &r->spec;
    size_t slices = s->nranks + (s->half == GS_HALF_SCATTER ? 1u : 0u);
    if (s->select == GS_SELECT_DENSE)
        add(a, &r->recvRecords, slices * gsSliceCount(s) * gsTypeWidth(s->type), WIRE);
    if (s->half != GS_HALF_SCATTER)
        return;
    add(a, &r->seals, s->nranks * GS_SEALS * sizeof(gsSeal), WIRE);
    add(a, &r->members, s->nranks * sizeof(int32_t), SCRATCH);
}

/* Rows of sums that the statistics need at once. */
static size_t sumRows(const gsSpec *s)
{
    return s->pool ? (GS_MAX_POOL + 1) * (GS_MAX_POOL + 2) / 2 : 3;
}

static allocations listAllocations(struct gsReducer *r)
{
    const gsSpec *s = &r->spec;
    const gsHierarchy *h = &r->nodes;
    size_t blocks = s->blocks, groups = (size_t)gsRecordGroups(s->value);
    allocations a = {.n = 0};
    add(&a, &r->state, sizeof(gsState), STATE);
    if (h->ranks || (s->select == GS_SELECT_DENSE && s->half != GS_HALF_SCATTER))
        add(&a, &r->arrived, 2 * sizeof(float), SCRATCH);
    if (s->tensors)
        listTables(r, &a);
    if (s->half)
        listHalf(r, &a);
    if (s->select == GS_SELECT_DENSE && s->half)
        return a;
    if (s->select == GS_SELECT_DENSE) { /* slices of all ranks, then their sums */
        add(&a, &r->recvRecords, 2 * gsSliceElements(s, s->count) * gsTypeWidth(s->type) * s->nranks, WIRE);
        return a;
    }
    listVectors(r, &a);
    add(&a, &r->keptBits, blocks * GS_BLOCK_WORDS * sizeof(uint32_t), SCRATCH);
    if (s->select == GS_SELECT_ROWS)
        add(&a, &r->rowBits, (gsRecordRows(s->count, s->width) + 31) / 32 * sizeof(uint32_t), SCRATCH);
    add(&a, &r->blockKept, groups * blocks * sizeof(uint32_t), SCRATCH);
    add(&a, &r->blockOffset, groups * (blocks + 1) * sizeof(uint32_t), SCRATCH);
    add(&a, &r->blockSum, sumRows(s) * blocks * sizeof(double), SCRATCH);
    if (s->select == GS_SELECT_GSPAR)
        add(&a, &r->blockBelow, blocks * sizeof(uint32_t), SCRATCH);
    if (s->select == GS_SELECT_THRESHOLD || s->select == GS_SELECT_LARGEST)
        add(&a, &r->histogram, GS_HISTOGRAM_BINS * sizeof(uint32_t), SCRATCH);
    size_t slots = gsSpecHasOwners(s) ? s->partSlot * s->nranks : s->slotBytes * s->nranks;
    add(&a, &r->sendRecord, gsSpecHasOwners(s) ? slots : s->slotBytes, WIRE);
    add(&a, &r->recvRecords, slots, WIRE);
    if (gsSpecHasOwners(s))
        listParts(r, &a);
    if (gsHasDenseSteps(s))
        add(&a, &r->denseBuffer, 2 * gsSliceElements(s, gsVectorElements(s)) * gsRealBytes(s) * s->nranks, WIRE);
    if (h->ranks) {
        add(&a, &r->nodes.slots, (size_t)h->ranks * h->slotBytes, WIRE);
        add(&a, &r->nodes.sum, h->slice * gsTypeBytes((gsDataType_t)s->type), WIRE);
        add(&a, &r->nodes.members, s->nranks * sizeof(int32_t), SCRATCH);
    }
    return a;
}

int gsListVectors(gsReducer_t r, gsStateVector list[GS_MAX_VECTORS])
{
    static const char *const names[GS_MAX_POOL] = {[GS_REFERENCE_LAST] = "last",
                                                   [GS_REFERENCE_EMA] = "ema",
                                                   [GS_REFERENCE_EMA2] = "ema2",
                                                   [GS_REFERENCE_SNAPSHOT] = "snapshot"};
    uint64_t count = gsVectorElements(&r->spec);
    gsStateVector all[GS_MAX_VECTORS] = {{"residual", r->residual, 1, 1, 1, count, 0},
                                         {"momentum", r->momentum, 1, 1, 1, count, 0},
                                         {"previous", r->previous, 1, 0, 0, count, 0},
                                         {"anchor", &r->anchor, 0, 1, 0, count, 0},
                                         {"memory", &r->memory, 0, 1, 1, count, 0},
                                         {"shared", &r->shared, 0, 0, 1, r->sharedCount, 0},
                                         {"before", r->before, 1, 1, 1, count, 0},
                                         {"history", &r->history, 0, 0, 1,
                                          (uint64_t)r->spec.window * r->spec.blocks * GS_BLOCK, 0}};
    int n = 8, there = 0;
    for (int p = 0; p < GS_MAX_POOL; p++)
        if (names[p])
            all[n++] = (gsStateVector){names[p], &r->pool[p], 0, 0, 1, count, 0};
    for (int i = 0; i < n; i++) {
        all[i].owned = r->owns == (all[i].place == &r->shared ? GS_OWNS_SHARED : GS_OWNS_OTHERS);
        if (*all[i].place)
            list[there++] = all[i];
    }
    return there;
}

void *gsVectorNow(const gsStateVector *v, uint32_t phase)
{
    return v->place[v->pair ? phase : 0];
}

/* Whether there is a reducer behind this one: of the result, or of this owner's sum. */
static int hasSecond(const gsSpec *s)
{
    return s->twoway || (gsSpecHasOwners(s) && !s->half);
}

/* A two-way reducer by owners needs H at each block's owner alone, and so does a scattered sum. A gathered vector's is of all slices. */
static void setShared(struct gsReducer *r)
{
    const gsSpec *s = &r->spec;
    r->owns = GS_OWNS_NOTHING;
    r->sharedCount = gsVectorElements(s);
    if (s->half == GS_HALF_GATHER) {
        r->owns = GS_OWNS_OTHERS;
        r->sharedCount *= s->nranks;
    } else if (gsSpecHasOwners(s) && (s->twoway || s->half)) {
        r->owns = GS_OWNS_SHARED;
        r->sharedCount = gsPartCount(s, s->rank);
    }
}

static gsResult_t makeSecondSpec(const gsReducerConfig_t *config, const struct gsReducer *r, struct gsReducer *second)
{
    second->sharedCount = gsVectorElements(&r->spec); /* all ranks know what all owners have sent */
    if (!gsSpecHasOwners(&r->spec)) {
        GS_CHECK(gsSpecMake(config, 0, 1, 1, &second->spec));
        second->recipeHash = gsRecipeHash(&second->spec);
        return GS_SUCCESS;
    }
    GS_CHECK(gsSpecMakeOwner(config, &r->spec, &second->spec));
    second->spec.exchange = gsSpecIsExact(&r->spec) ? GS_EXCHANGE_EXACT : GS_EXCHANGE_CAPACITY;
    second->owns = GS_OWNS_OTHERS;
    second->recipeHash = r->recipeHash + 1; /* its own sizes depend on the number of ranks */
    return GS_SUCCESS;
}

static void addMemory(struct gsReducer *r, uint64_t bytes[3])
{
    allocations a = listAllocations(r);
    for (int i = 0; i < a.n; i++)
        bytes[a.list[i].kind] += a.list[i].bytes;
}

gsResult_t gsAddUpMemory(const gsReducerConfig_t *config, int nranks, const gsHierarchy *nodes, gsMemory_t *memory)
{
    struct gsReducer r = {.nodes = *nodes};
    uint64_t bytes[3] = {0};
    if (!memory)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "memory is NULL; expected a place for the figures");
    GS_CHECK(gsSpecMake(config, 0, nranks, 0, &r.spec));
    setShared(&r);
    addMemory(&r, bytes);
    if (hasSecond(&r.spec)) {
        struct gsReducer second = {0};
        GS_CHECK(makeSecondSpec(config, &r, &second));
        addMemory(&second, bytes);
    }
    *memory = (gsMemory_t){.stateBytes = bytes[STATE], .wireBytes = bytes[WIRE], .scratchBytes = bytes[SCRATCH]};
    return GS_SUCCESS;
}

/* The most that any mode needs that exchange=auto may come to, nodes aside. */
static gsResult_t mostMemory(const gsReducerConfig_t *config, int nranks, gsMemory_t *memory)
{
    *memory = (gsMemory_t){0, 0, 0};
    for (int mode = GS_MODE_DENSE; mode < GS_MODE_HIERARCHICAL; mode++) {
        gsReducerConfig_t own = *config;
        gsMemory_t one;
        char *recipe = gsRecipeInMode(config->recipe, (gsMode_t)mode);
        if (!recipe)
            return gsFail(GS_ERROR_OUT_OF_MEMORY, "no memory for a recipe");
        own.recipe = recipe;
        gsResult_t result = gsReducerGetMemory(&own, nranks, &one);
        free(recipe);
        if (result != GS_SUCCESS)
            continue; /* not for this recipe */
        memory->stateBytes = one.stateBytes > memory->stateBytes ? one.stateBytes : memory->stateBytes;
        memory->wireBytes = one.wireBytes > memory->wireBytes ? one.wireBytes : memory->wireBytes;
        memory->scratchBytes = one.scratchBytes > memory->scratchBytes ? one.scratchBytes : memory->scratchBytes;
    }
    return GS_SUCCESS;
}

gsResult_t gsReducerGetMemory(const gsReducerConfig_t *config, int nranks, gsMemory_t *memory)
{
    static const gsHierarchy none;
    gsSpec spec;
    if (!memory)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "memory is NULL; expected a place for the figures");
    if (nranks < 1)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "nranks is %d; expected 1 or more", nranks);
    GS_CHECK(gsSpecMake(config, 0, nranks, 0, &spec));
    if (spec.exchange == GS_EXCHANGE_AUTO)
        return mostMemory(config, nranks, memory);
    if (spec.exchange == GS_EXCHANGE_HIERARCHICAL)
        return gsFail(GS_ERROR_UNSUPPORTED,
                      "recipe \"%s\": its memory depends on the nodes; ask gsReducerGetNodeMemory", config->recipe);
    return gsAddUpMemory(config, nranks, &none, memory);
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
    allocations a = listAllocations(r);
    for (int i = 0; i < a.n; i++) {
        void **place = a.list[i].place;
        if (!*place)
            continue;
        if (r->releaseBytes)
            r->releaseBytes(*place, r->allocatorContext);
        else
            r->comm->backend->release(*place);
        *place = NULL;
    }
}

static gsResult_t allocateAll(gsReducer_t r)
{
    allocations a = listAllocations(r);
    for (int i = 0; i < a.n; i++)
        GS_CHECK(allocateOne(r, &a.list[i]));
    return GS_SUCCESS;
}

/* ---- agreement: every rank tells what it was given ---- */

typedef struct {
    uint64_t result; /* of this rank's own preparations */
    uint64_t configHash, count, type, seed, listHash, half;
} agreement;

static gsResult_t compare(gsComm_t comm, const agreement *all)
{
    const agreement *own = &all[comm->rank];
    for (int i = 0; i < comm->nranks; i++) {
        const agreement *other = &all[i];
        if (other->result != GS_SUCCESS)
            return gsFail(GS_ERROR_MISMATCH, "rank %d could not make its reducer (%s)", i,
                          gsGetErrorString((gsResult_t)other->result));
        if (other->half != own->half)
            return gsFail(GS_ERROR_MISMATCH, "rank %d has collective %llu, rank %d has %llu", i,
                          (unsigned long long)other->half, comm->rank, (unsigned long long)own->half);
        if (other->count != own->count)
            return gsFail(GS_ERROR_MISMATCH, "rank %d has count %llu, rank %d has %llu", i,
                          (unsigned long long)other->count, comm->rank, (unsigned long long)own->count);
        if (other->listHash != own->listHash)
            return gsFail(GS_ERROR_MISMATCH, "rank %d has another list of tensors than rank %d", i, comm->rank);
        if (other->type != own->type)
            return gsFail(GS_ERROR_MISMATCH, "rank %d has datatype %llu, rank %d has %llu", i,
                          (unsigned long long)other->type, comm->rank, (unsigned long long)own->type);
        if (other->seed != own->seed)
            return gsFail(GS_ERROR_MISMATCH, "rank %d has seed %llu, rank %d has %llu", i,
                          (unsigned long long)other->seed, comm->rank, (unsigned long long)own->seed);
        if (other->configHash != own->configHash)
            return gsFail(GS_ERROR_MISMATCH, "rank %d has another recipe (or GS_DISABLE) than rank %d", i, comm->rank);
    }
    return GS_SUCCESS;
}

/* Takes part even where this rank has failed, so that the others hear of it now and not at their deadline. Slices differ; of what they
 * are cut from the ranks have agreed before. */
static gsResult_t agree(gsReducer_t r, gsResult_t prepared)
{
    gsComm_t comm = gsCommWhole(r->comm);
    if (!comm->transport->allGatherHost)
        return prepared;
    agreement own = {prepared,     r->spec.configHash, r->spec.count, r->spec.type,
                     r->spec.seed, r->spec.listHash,   r->spec.half};
    if (r->nodes.ranks)
        own = (agreement){.result = prepared};
    agreement *all = calloc((size_t)comm->nranks, sizeof *all);
    if (!all)
        return gsFail(GS_ERROR_OUT_OF_MEMORY, "no memory to compare %d configurations", comm->nranks);
    char reason[512];
    strncpy(reason, gsGetLastError(), sizeof reason - 1);
    reason[sizeof reason - 1] = 0;
    gsResult_t result = comm->transport->allGatherHost(comm, &own, all, sizeof own);
    if (prepared != GS_SUCCESS)
        result = gsFail(prepared, "%s", reason);
    else if (result == GS_SUCCESS)
        result = compare(comm, all);
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

/* What the communicator cannot do for this recipe. */
static gsResult_t checkSupport(gsReducer_t r, const gsReducerConfig_t *config)
{
    if (r->spec.exchange > GS_EXCHANGE_OWNER_EXACT && !r->nodes.ranks)
        return gsFail(GS_ERROR_UNSUPPORTED, "recipe \"%s\": expected exchange=capacity, exact, owner or owner-exact",
                      config->recipe);
    return r->comm->backend->prepare ? r->comm->backend->prepare(r) : GS_SUCCESS;
}

/* Before the first record: the longest there may be. */
static void expectRecord(gsReducer_t r)
{
    const gsSpec *s = &r->spec;
    double sent = (double)(s->capacity + s->whole), count = (double)s->count;
    r->known.bytes = gsSpecHasOwners(s) ? s->nranks * s->partSlot : s->slotBytes;
    r->known.density = sent < count ? sent / count : 1.0;
}

/* All that follows from the spec. */
static gsResult_t prepare(gsReducer_t r, const gsReducerConfig_t *config)
{
    static const gsCounters none;
    static const float one = 1.0f;
    int64_t threads;
    GS_CHECK(gsParamInt("GS_THREADS", 1, 1024, defaultThreads(r->comm, r->spec.blocks), &threads));
    r->cpuThreads = config->cpuThreads ? config->cpuThreads : (int)threads;
    r->allocateBytes = config->allocate;
    r->releaseBytes = config->release;
    r->allocatorContext = config->allocatorContext;
    GS_CHECK(checkSupport(r, config));
    GS_CHECK(allocateAll(r));
    gsReducerConfig_t tensors = gsHalfTensors(config, r->comm->nranks);
    if (r->spec.tensors)
        GS_CHECK(gsListPrepare(r, &tensors));
    if (r->arrived)
        GS_CHECK(r->comm->backend->put(r->arrived, &one, sizeof one, NULL));
    GS_CHECK(gsHalfFill(r));
    if (r->nodes.ranks)
        GS_CHECK(gsHierarchyFill(r));
    expectRecord(r);
    return beginState(r, &none, NULL);
}

static void destroyReducer(gsReducer_t r)
{
    if (!r)
        return;
    releaseAll(r);
    destroyReducer(r->server);
    free(r->owners);
    if (r->serverComm)
        gsCommDestroy(r->serverComm);
    gsListRelease(r);
    free(r);
}

/* Two-way without owners: a reducer of one rank, alike on all ranks. */
static gsResult_t prepareAlone(gsReducer_t r)
{
    gsCommConfig_t commConfig = GS_COMM_CONFIG_INIT;
    GS_CHECK(gsCommMake(&r->serverComm, &gsSelfTransport, r->comm->backend, 0, 1, &commConfig));
    r->serverComm->localRanks = r->comm->localRanks;
    r->server->comm = r->serverComm;
    r->server->upstream = r->state;
    return GS_SUCCESS;
}

static gsResult_t prepareSecond(gsReducer_t r, const gsReducerConfig_t *config)
{
    int owners = gsSpecHasOwners(&r->spec);
    if (!hasSecond(&r->spec))
        return owners ? gsOwnersPrepare(r) : GS_SUCCESS;
    r->server = calloc(1, sizeof *r->server);
    if (!r->server)
        return gsFail(GS_ERROR_OUT_OF_MEMORY, "no %zu bytes for a reducer", sizeof *r);
    r->server->comm = r->comm;
    if (!owners)
        GS_CHECK(prepareAlone(r));
    GS_CHECK(makeSecondSpec(config, r, r->server));
    GS_CHECK(prepare(r->server, config));
    GS_CHECK(gsRangeNameReducer(r->server, config->recipe, r));
    return owners ? gsOwnersPrepare(r) : GS_SUCCESS;
}

static gsResult_t prepareWhole(gsReducer_t r, const gsReducerConfig_t *config)
{
    GS_CHECK(gsSpecMake(config, r->comm->rank, r->comm->nranks, 0, &r->spec));
    r->recipeHash = gsRecipeHash(&r->spec);
    setShared(r);
    GS_CHECK(prepare(r, config));
    GS_CHECK(gsRangeNameReducer(r, config->recipe, NULL));
    return prepareSecond(r, config);
}

static gsResult_t makeSettled(gsReducer_t r, const gsReducerConfig_t *config)
{
    gsReducerConfig_t slice;
    gsResult_t result = gsSpecMake(config, r->comm->rank, r->comm->nranks, 0, &r->spec);
    if (result == GS_SUCCESS && r->spec.exchange == GS_EXCHANGE_HIERARCHICAL) {
        GS_CHECK(agree(r, GS_SUCCESS)); /* parts are made by all ranks */
        result = gsHierarchyMake(r, config, &slice);
        config = &slice;
    }
    return agree(r, result == GS_SUCCESS ? prepareWhole(r, config) : result);
}

/* exchange=auto becomes another recipe, once the ranks have agreed that they all want it. */
static gsResult_t make(gsReducer_t r, const gsReducerConfig_t *config)
{
    gsReducerConfig_t settled = {0};
    char *recipe;
    if (gsSpecMake(config, r->comm->rank, r->comm->nranks, 0, &r->spec) != GS_SUCCESS ||
        r->spec.exchange != GS_EXCHANGE_AUTO)
        return makeSettled(r, config);
    GS_CHECK(agree(r, GS_SUCCESS));
    GS_CHECK(gsPlanSettle(r->comm, config, &recipe));
    settled = *config;
    settled.recipe = recipe;
    gsResult_t result = makeSettled(r, &settled);
    free(recipe);
    return result;
}

gsResult_t gsReducerMakeStage(gsReducer_t *reducer, gsComm_t comm, const gsReducerConfig_t *config)
{
    *reducer = calloc(1, sizeof **reducer);
    if (!*reducer)
        return gsFail(GS_ERROR_OUT_OF_MEMORY, "no %zu bytes for a reducer", sizeof **reducer);
    (*reducer)->comm = comm;
    comm->reducers++;
    GS_CHECK(gsSpecMakeStage(config, comm->rank, comm->nranks, &(*reducer)->spec));
    setShared(*reducer);
    GS_CHECK(prepare(*reducer, config));
    return gsRangeNameReducer(*reducer, config->recipe, NULL);
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
    r->number = comm->made++;
    gsResult_t result = make(r, config);
    if (result != GS_SUCCESS) {
        destroyReducer(r);
        return result;
    }
    comm->reducers++;
    gsLog(GS_LOG_INFO, "rank %d of %d: reducer \"%s\", %llu elements, capacity %llu coordinates, slot %llu bytes",
          comm->rank, comm->nranks, config->recipe, (unsigned long long)r->spec.count,
          (unsigned long long)r->spec.capacity, (unsigned long long)r->spec.slotBytes);
    *reducer = r;
    return GS_SUCCESS;
}

gsResult_t gsCheckReducer(gsReducer_t r)
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
    gsCommWhole(r->comm)->reducers--;
    destroyReducer(r);
    return GS_SUCCESS;
}

static gsResult_t clearVector(gsReducer_t r, void *vector, uint64_t elements, gsStream_t stream)
{
    uint64_t padded = (elements + GS_BLOCK - 1) / GS_BLOCK * GS_BLOCK;
    return r->comm->backend->fill(vector, 0, padded * gsRealBytes(&r->spec), stream);
}

gsResult_t gsReducerReset(gsReducer_t r, gsStream_t stream)
{
    GS_CHECK(gsCheckReducer(r));
    gsState state;
    gsStateVector list[GS_MAX_VECTORS];
    int n = gsListVectors(r, list);
    GS_CHECK(r->comm->backend->get(&state, r->state, sizeof state, stream));
    for (int i = 0; i < n; i++)
        for (int k = 0; k <= list[i].pair; k++)
            GS_CHECK(clearVector(r, list[i].place[k], list[i].elements, stream));
    r->staged = GS_STAGED_NOTHING;
    r->steps = 0;
    GS_CHECK(beginState(r, &state.counters, stream));
    return r->server ? gsReducerReset(r->server, stream) : GS_SUCCESS;
}

/* A history is longer than blocks can be counted, an owner's vector shorter than its reducer's. */
gsResult_t gsScaleVector(gsReducer_t r, void *vector, uint64_t elements, float factor, gsStream_t stream)
{
    struct gsReducer some = *r;
    for (uint64_t left = (elements + GS_BLOCK - 1) / GS_BLOCK; left; left -= some.spec.blocks) {
        some.spec.blocks = left < UINT32_MAX ? (uint32_t)left : UINT32_MAX;
        GS_CHECK(r->comm->backend->scale(&some, vector, factor, stream));
        vector = (char *)vector + (size_t)some.spec.blocks * GS_BLOCK * gsRealBytes(&r->spec);
    }
    return GS_SUCCESS;
}

gsResult_t gsReducerScale(gsReducer_t r, float factor, gsStream_t stream)
{
    GS_CHECK(gsCheckReducer(r));
    if (!gsIsFinite(factor) || !(factor > 0))
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "factor is %g; expected a finite number above 0", (double)factor);
    gsStateVector list[GS_MAX_VECTORS];
    int n = gsListVectors(r, list);
    GS_CHECK(r->comm->backend->scaleState(r, factor, stream));
    for (int i = 0; i < n; i++)
        for (int k = 0; k <= list[i].pair && list[i].degree; k++)
            GS_CHECK(gsScaleVector(r, list[i].place[k], list[i].elements, factor, stream));
    return r->server ? gsReducerScale(r->server, factor, stream) : GS_SUCCESS;
}

gsResult_t gsReducerGetAsyncError(gsReducer_t r, gsResult_t *asyncError)
{
    static const uint32_t none[2] = {GS_FAULT_NONE, 0}; /* fault, faultRank */
    gsState state;
    GS_CHECK(gsCheckReducer(r));
    if (!asyncError)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "asyncError is NULL; expected a place for the error");
    GS_CHECK(r->comm->backend->get(&state, r->state, sizeof state, NULL));
    *asyncError = gsVerdictError(&state);
    if (*asyncError == GS_SUCCESS)
        return GS_SUCCESS;
    r->stats.failed++;
    if (r->owners && r->server)
        GS_CHECK(r->comm->backend->put(&r->server->state->fault, none, sizeof none, NULL));
    return r->comm->backend->put(&r->state->fault, none, sizeof none, NULL);
}

gsResult_t gsReducerGetSlotBytes(gsReducer_t r, size_t *slotBytes)
{
    GS_CHECK(gsCheckReducer(r));
    if (!slotBytes)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "slotBytes is NULL; expected a place for the bytes");
    *slotBytes = r->spec.half == GS_HALF_SCATTER ? r->spec.partSlot : r->spec.slotBytes;
    return GS_SUCCESS;
}

gsResult_t gsReducerGetMode(gsReducer_t r, gsMode_t *mode)
{
    GS_CHECK(gsCheckReducer(r));
    if (!mode)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "mode is NULL; expected a place for the mode");
    *mode = r->spec.select == GS_SELECT_DENSE ? GS_MODE_DENSE : (gsMode_t)(GS_MODE_CAPACITY + r->spec.exchange);
    return GS_SUCCESS;
}
