/* Lists of tensors: what a configuration says of one, and the tables that every stage, and every record, goes by. */
#include "core.h"

#include <stdlib.h>
#include <string.h>

/* A tensor that does not fill a block: what is selected from it would ask for a block of state, of work and of a table all the same,
 * while whole, at 16 bits a value, it takes less than 8 KB of a record. Biases and norms are of this kind. */
enum { WHOLE_BELOW = GS_BLOCK };

static gsResult_t checkSizes(const gsReducerConfig_t *config)
{
    uint64_t sum = 0, blocks = 0;
    for (uint32_t t = 0; t < config->segmentCount; t++) {
        if (config->segments[t] > config->count - sum)
            return gsFail(
                GS_ERROR_INVALID_ARGUMENT,
                "config->segments add up to more than config->count, %llu, from segment %u of %llu elements on",
                (unsigned long long)config->count, t, (unsigned long long)config->segments[t]);
        sum += config->segments[t];
        blocks += (config->segments[t] + GS_BLOCK - 1) / GS_BLOCK;
    }
    if (sum != config->count)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "config->segments add up to %llu; expected config->count, %llu",
                      (unsigned long long)sum, (unsigned long long)config->count);
    if (blocks > 0xfffffffeu)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "config->segments take %llu blocks of 4096; expected at most 2^32 - 2",
                      (unsigned long long)blocks);
    return GS_SUCCESS;
}

gsResult_t gsListCheck(const gsReducerConfig_t *config)
{
    if (!config->segments != !config->segmentCount)
        return gsFail(GS_ERROR_INVALID_ARGUMENT,
                      "config->segments is %p and config->segmentCount %u; expected both, or NULL and 0",
                      (const void *)config->segments, config->segmentCount);
    if (config->segmentCount > GS_RECORD_MAX_TENSORS)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "config->segmentCount is %u; expected at most %d",
                      config->segmentCount, GS_RECORD_MAX_TENSORS);
    if (!config->segments && config->wholeBelow)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "config->wholeBelow is %llu; without config->segments expected 0",
                      (unsigned long long)config->wholeBelow);
    return checkSizes(config);
}

/* Without sizes all are alike. */
static uint64_t sizeOf(const gsReducerConfig_t *config, uint32_t t)
{
    return config->segments ? config->segments[t] : config->count / config->segmentCount;
}

static int travelsWhole(const gsReducerConfig_t *config, uint64_t elements)
{
    return elements < (config->wholeBelow ? config->wholeBelow : WHOLE_BELOW);
}

/* FNV-1a, of sizes and kinds. */
static uint64_t hashOf(const gsReducerConfig_t *config)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (uint32_t t = 0; t < config->segmentCount; t++)
        hash = (hash ^ (sizeOf(config, t) * 2 + (uint64_t)travelsWhole(config, sizeOf(config, t)))) * 0x100000001b3u;
    return hash;
}

void gsListMeasure(const gsReducerConfig_t *config, gsSpec *spec)
{
    spec->tensors = config->segmentCount;
    spec->listHash = hashOf(config);
    for (uint32_t t = 0; t < config->segmentCount; t++) {
        uint64_t elements = sizeOf(config, t);
        spec->blocks += (uint32_t)((elements + GS_BLOCK - 1) / GS_BLOCK);
        if (travelsWhole(config, elements))
            spec->whole += elements;
        else
            spec->places += gsListPlaces(elements);
    }
}

uint64_t gsListFixed(const gsReducerConfig_t *config, uint32_t k)
{
    uint64_t slots = 0;
    for (uint32_t t = 0; t < config->segmentCount; t++)
        slots += travelsWhole(config, sizeOf(config, t)) ? 0 : gsTopkTotal(k, sizeOf(config, t));
    return slots;
}

/* The blocks of a tensor, from `block` on; *place moves behind its codes. */
static gsListBlock *fillTensor(const gsSpec *spec, const gsListBlock *tensor, uint64_t elements, gsListBlock *block,
                               uint64_t *place)
{
    for (uint64_t offset = 0; offset < elements; offset += GS_BLOCK, block++) {
        uint64_t left = elements - offset, length = left < GS_BLOCK ? left : GS_BLOCK;
        *block = *tensor;
        block->offset = offset;
        block->first = tensor->first + offset;
        block->length = (uint16_t)length;
        block->place = *place;
        if (tensor->whole)
            *place += length;
        else
            *place += spec->layout == GS_LAYOUT_CHUNKED ? gsTopkKept(spec->k, (uint32_t)length) : gsListPlaces(length);
    }
    return block;
}

static void fillTables(const gsReducerConfig_t *config, const gsSpec *spec, gsListBlock *blocks,
                       gsRecordSegment *entries)
{
    uint64_t place[2] = {0, 0}, first = 0; /* of the chosen, and of the whole */
    for (uint32_t t = 0; t < config->segmentCount; t++) {
        uint64_t elements = sizeOf(config, t);
        int whole = spec->select != GS_SELECT_DENSE && travelsWhole(config, elements);
        gsListBlock tensor = {.first = first, .tensor = t, .whole = (uint16_t)whole};
        blocks = fillTensor(spec, &tensor, elements, blocks, &place[whole]);
        first += elements;
        entries[t] = (gsRecordSegment){.count = elements, .aux = whole ? GS_RECORD_WHOLE + spec->wholeValue : 0};
    }
}

/* ---- a reducer's ---- */

static gsResult_t putTables(gsReducer_t r, const gsReducerConfig_t *config, gsListBlock *blocks, uint64_t n,
                            gsRecordSegment *entries)
{
    fillTables(config, &r->spec, blocks, entries);
    if (n)
        GS_CHECK(r->comm->backend->put(r->list, blocks, n * sizeof *blocks, NULL));
    return r->comm->backend->put(r->entries, entries, config->segmentCount * sizeof *entries, NULL);
}

static gsResult_t makeTables(gsReducer_t r, const gsReducerConfig_t *config)
{
    uint64_t n = (uint64_t)r->spec.blocks * gsListTables(&r->spec);
    gsListBlock *blocks = malloc((n + 1) * sizeof *blocks);
    gsRecordSegment *entries = malloc(config->segmentCount * sizeof *entries);
    gsResult_t result = blocks && entries ? putTables(r, config, blocks, n, entries)
                                          : gsFail(GS_ERROR_OUT_OF_MEMORY, "no memory for the tables of %u tensors",
                                                   config->segmentCount);
    free(blocks);
    free(entries);
    return result;
}

void gsListSpread(gsReducer_t r, const void *buffer, uint32_t n)
{
    uint8_t *at = (uint8_t *)buffer;
    for (uint32_t t = 0; t < n; t++) {
        r->tensors[t] = at;
        at += r->sizes[t] * gsTypeWidth(r->spec.type);
    }
}

static gsResult_t setRow(gsReducer_t r, uint32_t row, const void *buffer)
{
    gsListSpread(r, buffer, r->spec.tensors);
    return r->comm->backend->setTensors(r, r->tensors, row * r->spec.tensors, r->spec.tensors, NULL);
}

gsResult_t gsListPrepare(gsReducer_t r, const gsReducerConfig_t *config)
{
    size_t n = config->segmentCount;
    r->sizes = malloc(n * sizeof *r->sizes);
    r->tensors = malloc(n * sizeof *r->tensors);
    r->listCall = malloc(sizeof *r->listCall + 2 * n * sizeof(void *));
    r->listRanges = malloc(n * sizeof *r->listRanges);
    if (!r->sizes || !r->tensors || !r->listCall || !r->listRanges)
        return gsFail(GS_ERROR_OUT_OF_MEMORY, "no memory for a list of %zu tensors", n);
    for (uint32_t t = 0; t < n; t++)
        r->sizes[t] = sizeOf(config, t);
    GS_CHECK(makeTables(r, config));
    r->spec.list = r->list;
    r->spec.entries = r->entries;
    if (r->spec.select != GS_SELECT_DENSE)
        return GS_SUCCESS;
    GS_CHECK(setRow(r, GS_GATHERED, r->gathered));
    return setRow(r, GS_SUMS, gsDenseSums(r));
}

void gsListRelease(gsReducer_t r)
{
    free(r->sizes);
    free(r->tensors);
    free(r->listCall);
    free(r->listRanges);
}

/* ---- a call's ---- */

static int byBegin(const void *a, const void *b)
{
    const gsListRange *x = a, *y = b;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

gsResult_t gsListCheckResults(gsReducer_t r, void *const *recvbuffs)
{
    gsListRange *ranges = r->listRanges;
    size_t n = 0;
    for (uint32_t t = 0; t < r->spec.tensors; t++) {
        uintptr_t begin = (uintptr_t)recvbuffs[t];
        if (r->sizes[t])
            ranges[n++] = (gsListRange){begin, begin + r->sizes[t] * gsTypeWidth(r->spec.type), t};
    }
    qsort(ranges, n, sizeof *ranges, byBegin);
    for (size_t i = 1; i < n; i++)
        if (ranges[i].begin < ranges[i - 1].end)
            return gsFail(GS_ERROR_INVALID_ARGUMENT,
                          "recvbuffs[%u] %p and recvbuffs[%u] %p overlap; expected them apart", ranges[i - 1].tensor,
                          recvbuffs[ranges[i - 1].tensor], ranges[i].tensor, recvbuffs[ranges[i].tensor]);
    return GS_SUCCESS;
}
