/* From a configuration to the spec that ranks share: types, recipe, sizes, and the hash over all of it. */
#include "core.h"
#include "hash.h"

#include <math.h>
#include <string.h>

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
    if (!gsIsFloating(config->datatype))
        return gsFail(
            GS_ERROR_INVALID_ARGUMENT,
            "config->datatype is %d; expected GS_FLOAT16 (6), GS_FLOAT32 (7), GS_FLOAT64 (8) or GS_BFLOAT16 (9)",
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
    if (config->reserved2)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "config->reserved2 is %u; expected 0", config->reserved2);
    if (!config->allocate != !config->release)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "config has one of allocate and release; expected both or none");
    return config->segments || config->segmentCount || config->wholeBelow ? gsListCheck(config) : GS_SUCCESS;
}

/* How many are wanted at `density`; topk's k says it outright. */
static uint64_t targetOf(const gsSpec *s, double density)
{
    uint64_t n = s->select == GS_SELECT_LARGEST && s->k ? s->k : (uint64_t)ceil(density * (double)gsChosen(s));
    return n < gsChosen(s) ? n : gsChosen(s);
}

/* Room for the kept coordinates of one call; see the header for the default's derivation. */
static double capacityOf(const gsReducerConfig_t *config, const gsSpec *s)
{
    double n = (double)gsChosen(s), expected = s->density * n, room;
    if (s->layout == GS_LAYOUT_ALL || s->layout == GS_LAYOUT_ROWS)
        return n;
    if (s->select == GS_SELECT_TOPK)
        return (double)(s->tensors ? gsListFixed(config, s->k) : gsTopkTotal(s->k, s->count));
    if (s->select == GS_SELECT_LARGEST)
        return (double)(s->warmup ? s->warmTarget[0] : s->target);
    room = s->capacityShare > 0 ? ceil(s->capacityShare * n) : ceil(1.25 * expected + 6 * sqrt(expected)) + 1;
    if (room < gsRecordGroups(s->value)) /* each group of a thinned record keeps a slot */
        room = gsRecordGroups(s->value);
    return room < n ? room : n;
}

/* Slots are counted in 32 bits, and so are the kept that thinning chooses from: the expected number and six deviations. */
static gsResult_t checkKept(const gsReducerConfig_t *config, const gsSpec *s, double room)
{
    double expected = s->density * (double)gsChosen(s), most = room;
    if (s->random && expected + 6 * sqrt(expected) > most)
        most = expected + 6 * sqrt(expected);
    if (most <= (double)GS_RECORD_MAX_KEPT || s->layout == GS_LAYOUT_ALL)
        return GS_SUCCESS;
    if (s->layout == GS_LAYOUT_ROWS)
        return gsFail(GS_ERROR_INVALID_RECIPE, "recipe \"%s\" with count %llu; expected at most 4294967295 for rows",
                      config->recipe, (unsigned long long)config->count);
    return gsFail(
        GS_ERROR_INVALID_RECIPE,
        "recipe \"%s\" with count %llu keeps up to %.0f coordinates; expected at most 4294967295: lower the density",
        config->recipe, (unsigned long long)config->count, most);
}

/* Over all that ranks must share: everything but the rank and what a call sets. */
static uint64_t configHash(const gsSpec *spec)
{
    gsSpec shared = *spec;
    shared.rank = 0;
    shared.configHash = 0;
    shared.average = shared.denseNow = shared.absent = shared.iterate = shared.preview = 0;
    shared.paramsType = 0;
    shared.stepSize = shared.smoothness = 0.0;
    shared.list = NULL;
    shared.entries = NULL;
    return gsHashBytes(GS_HASH_BASIS + GS_RECORD_VERSION, &shared, sizeof shared);
}

uint64_t gsRecipeHash(const gsSpec *spec)
{
    gsSpec any = *spec;
    any.nranks = any.parts = 0;
    any.partCapacity = any.partSlot = 0;
    return configHash(&any);
}

/* The longest record: all of the capacity in the costlier group. */
static void setSlot(gsSpec *s)
{
    gsRecordShape shape = {.of = gsSpecExtent(s, s->count),
                           .slots = {s->capacity, 0},
                           .layout = s->layout,
                           .value = s->value,
                           .aux = gsSpecAux(s),
                           .flags = s->pool ? GS_FLAG_REFERENCES : 0};
    s->slotBytes = gsRecordLayout(&shape).bytes;
    if (s->value == GS_VALUE_SHARED) /* a second group's sections may each be padded to 16 */
        s->slotBytes += 4 * GS_RECORD_ALIGN;
}

/* What a part may hold where slots are fixed. The fullest of 4 owners had 1.4 times the mean on real gradients at 1 %, the fullest of 4
 * slices 2.1 times; a mask drawn at random has six deviations. */
static double partShare(const gsSpec *s)
{
    double share = (double)s->capacity * ((double)gsPartCount(s, 0) / (double)s->count), uneven = s->half ? 2.0 : 1.5;
    return (s->layout == GS_LAYOUT_MASK ? share : uneven * share) + 6 * sqrt(share) + gsRecordGroups(s->value);
}

/* owner: room of a part's record. With true lengths a part may hold whatever the whole may. */
static void setParts(gsSpec *s)
{
    uint64_t most = gsPartCount(s, 0), room = s->capacity;
    gsSpec part;
    if (!gsSpecHasOwners(s) || s->count == 0) {
        s->partSlot = s->slotBytes;
        return;
    }
    if (s->layout == GS_LAYOUT_ALL)
        room = most;
    else if (s->layout == GS_LAYOUT_CHUNKED)
        room = gsTopkTotal(s->k, most);
    else if (!gsSpecIsExact(s) && partShare(s) < (double)room)
        room = (uint64_t)partShare(s);
    s->partCapacity = room < most ? room : most;
    part = gsPartSpec(s, 0);
    setSlot(&part);
    s->partSlot = part.slotBytes;
}

static gsResult_t setSizes(const gsReducerConfig_t *config, gsSpec *s)
{
    s->target = targetOf(s, s->density);
    for (int stage = 0; stage < GS_WARMUP_STAGES && s->warmup; stage++)
        s->warmTarget[stage] = targetOf(s, pow(s->density, (stage + 1.0) / (GS_WARMUP_STAGES + 1.0)));
    double room = capacityOf(config, s);
    GS_CHECK(checkKept(config, s, room));
    s->capacity = (uint64_t)room;
    setSlot(s);
    setParts(s);
    return GS_SUCCESS;
}

/* The second half of a two-way reducer compresses as the first does, and is alone: it has no silence, no references, no turns. */
static void makeSecondHalf(gsSpec *s)
{
    s->twoway = s->bypassed = 0;
    s->exchange = GS_EXCHANGE_CAPACITY;
    s->pool = s->search = s->quotient = s->refresh = 0;
    s->trigger = GS_TRIGGER_NONE;
    s->staleness = 0;
    s->participate = s->resync = 0;
    s->momentum = s->clip = 0.0;
    s->seed ^= 0x9E3779B97F4A7C15u; /* draws of its own */
}

/* A lossless record of sums: the coordinates that are not 0, or all of them where that is shorter. */
static void makeSums(const gsSpec *whole, gsSpec *s)
{
    double missed = pow(1.0 - whole->density, whole->nranks), most = (double)whole->partCapacity * whole->nranks;
    double expected = gsSpecIsExact(whole) ? (1.0 - missed) * (double)s->count : most;
    uint32_t full = whole->wide ? GS_VALUE_F64 : GS_VALUE_F32, bits = gsValueBits(full, 0);
    *s = (gsSpec){.count = s->count, .blocks = s->blocks, .seed = whole->seed, .type = s->type, .wide = whole->wide};
    s->value = full;
    s->density = s->lambda = s->nu = 1.0;
    s->stride = 1;
    if (expected * (bits + 12) < (double)s->count * bits) { /* 12 bits an index */
        s->select = GS_SELECT_THRESHOLD;                    /* tau = 0 */
        s->layout = GS_LAYOUT_GLOBAL;
        s->capacity = most < (double)s->count ? (uint64_t)most : s->count;
    } else {
        s->select = GS_SELECT_ALL;
        s->layout = GS_LAYOUT_ALL;
        s->aux = bits;
        s->capacity = s->count;
    }
}

/* What the second half keeps of all it keeps of its part. */
static gsResult_t makeSecondSums(const gsReducerConfig_t *config, const gsSpec *whole, gsSpec *s)
{
    uint64_t count = s->count;
    uint32_t blocks = s->blocks, type = s->type;
    GS_CHECK(gsSpecMake(config, 0, 1, 1, s));
    s->count = count;
    s->blocks = blocks;
    s->type = type;
    if (s->select == GS_SELECT_LARGEST)
        s->k = (s->k + whole->nranks - 1) / whole->nranks;
    return setSizes(config, s);
}

gsResult_t gsSpecMakeOwner(const gsReducerConfig_t *config, const gsSpec *whole, gsSpec *spec)
{
    memset(spec, 0, sizeof *spec);
    spec->count = gsPartCount(whole, 0); /* the largest: slots are alike on all ranks */
    spec->blocks = gsPartBlocks(whole, 0);
    spec->type = whole->wide ? GS_FLOAT64 : GS_FLOAT32;
    if (whole->twoway)
        GS_CHECK(makeSecondSums(config, whole, spec));
    else
        makeSums(whole, spec);
    setSlot(spec);
    spec->count = gsPartCount(whole, whole->rank);
    spec->blocks = gsPartBlocks(whole, whole->rank);
    spec->rank = whole->rank;
    spec->nranks = whole->nranks;
    if (spec->select != GS_SELECT_LARGEST)
        spec->target = targetOf(spec, spec->density);
    spec->configHash = gsPartHash(whole, whole->nranks); /* one more than the parts' */
    return GS_SUCCESS;
}

gsSpec gsSpecOfSums(const gsSpec *whole, const gsSpec *sums, uint32_t type)
{
    gsSpec all = *sums;
    all.count = whole->count;
    all.blocks = whole->blocks;
    all.type = type;
    all.parts = whole->nranks;
    return all;
}

static void begin(int rank, int nranks, gsSpec *spec)
{
    memset(spec, 0, sizeof *spec); /* padding too: it travels by value and is hashed */
    spec->rank = (uint32_t)rank;
    spec->nranks = (uint32_t)nranks;
    spec->stride = 1;
}

/* What holds whatever the recipe. */
static void setElements(const gsReducerConfig_t *config, gsSpec *spec)
{
    spec->count = config->count;
    spec->seed = config->seed;
    spec->type = config->datatype;
    spec->wide = config->datatype == GS_FLOAT64;
    spec->half = (uint32_t)config->collective;
    if (config->segmentCount) {
        gsListMeasure(config, spec);
        return;
    }
    spec->blocks = (uint32_t)((config->count + GS_BLOCK - 1) / GS_BLOCK);
}

/* How tensors travel that travel whole: as the recipe's values, where those are numbers, else as gradients. */
static uint32_t wholeValueOf(const gsSpec *s)
{
    if (s->value == GS_VALUE_F64 || s->value == GS_VALUE_F32 || s->value == GS_VALUE_BF16 || s->value == GS_VALUE_F16)
        return s->value;
    return s->wide ? GS_VALUE_F64 : s->type == GS_FLOAT32 ? GS_VALUE_F32 : GS_VALUE_BF16;
}

static gsResult_t settleList(const gsReducerConfig_t *config, gsSpec *s)
{
    if (!s->tensors || s->half)
        return GS_SUCCESS;
    if (gsSpecReadsIterate(s))
        return gsFail(GS_ERROR_UNSUPPORTED,
                      "recipe \"%s\" looks at iterates, which are one vector each: it takes no list", config->recipe);
    if (s->select == GS_SELECT_ROWS)
        return gsFail(GS_ERROR_UNSUPPORTED, "recipe \"%s\": rows are those of one matrix: it takes no list",
                      config->recipe);
    if (s->exchange > GS_EXCHANGE_EXACT)
        return gsFail(GS_ERROR_UNSUPPORTED, "recipe \"%s\": a list of tensors takes exchange=capacity or exact",
                      config->recipe);
    if (s->select == GS_SELECT_DENSE) { /* all the same */
        s->whole = s->places = 0;
        return GS_SUCCESS;
    }
    s->wholeValue = wholeValueOf(s);
    return GS_SUCCESS;
}

gsResult_t gsSpecMake(const gsReducerConfig_t *config, int rank, int nranks, int secondHalf, gsSpec *spec)
{
    begin(rank, nranks, spec); /* first: cleaning up after a refusal divides by nranks */
    GS_CHECK(checkConfig(config));
    GS_CHECK(gsHalfCheck(config, nranks));
    gsReducerConfig_t own = gsHalfOwn(config, nranks, 0);
    setElements(&own, spec);
    GS_CHECK(gsRecipeParse(config->recipe, spec));
    uint8_t bypassed = strcmp(gsParamText("GS_DISABLE", "0"), "1") == 0 && spec->select != GS_SELECT_DENSE;
    if (bypassed || spec->select == GS_SELECT_DENSE) {
        begin(rank, nranks, spec);
        own = gsHalfOwn(config, nranks, 1);
        setElements(&own, spec);
        spec->bypassed = bypassed;
        GS_CHECK(gsRecipeParse("dense", spec));
    }
    GS_CHECK(settleList(config, spec));
    GS_CHECK(gsHalfSettle(config, spec));
    if (secondHalf)
        makeSecondHalf(spec);
    if (spec->select != GS_SELECT_DENSE)
        GS_CHECK(setSizes(&own, spec));
    spec->configHash = configHash(spec);
    return GS_SUCCESS;
}

gsResult_t gsSpecMakeStage(const gsReducerConfig_t *config, int rank, int nranks, gsSpec *spec)
{
    GS_CHECK(gsSpecMake(config, rank, nranks, 0, spec));
    spec->twoway = spec->firstDense = 0;
    spec->refresh = spec->resync = spec->participate = spec->staleness = 0;
    spec->trigger = GS_TRIGGER_NONE;
    spec->exchange = GS_EXCHANGE_CAPACITY;
    spec->configHash = configHash(spec);
    return GS_SUCCESS;
}
