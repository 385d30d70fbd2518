/*
 * Accumulation: all ranks' records -> their sum in rank order -> result and memories. Block by block: the sums of a block stay in level
 * 1 cache while every record adds its coordinates, and the result is written once. The records have been validated.
 */
#include "codec.h"

/* What accumulate reads of a record, for one group. */
typedef struct {
    const uint32_t *table;           /* NULL: block b begins at slot b k, or the mask's */
    const float *scales;             /* by block; NULL: none */
    const uint8_t *values, *indices; /* or rows' bits */
    const uint8_t *whole;            /* values of tensors that travel whole; group 0 only */
    float magnitude;                 /* of a sign; group 1 only */
    int silent;                      /* nothing in it */
    int map;
    coding how, wholeHow;
    double coefficient[GS_MAX_POOL]; /* of the rank's references */
} groupView;

static groupView viewGroup(const gsReducer_t r, const uint8_t *record, int g)
{
    gsRecordHeader h;
    gsRecordSegment segment;
    memcpy(&h, record, sizeof h);
    memcpy(&segment, record + sizeof h, sizeof segment);
    gsRecordExtent extent = gsSpecExtent(&r->spec, h.count);
    gsRecordShape shape = gsRecordShapeOf(&h, &segment, &extent);
    gsRecordSections s = gsRecordLayout(&shape);
    const gsRecordGroup *at = &s.group[g];
    groupView v = {.values = record + at->values,
                   .indices = record + at->indices,
                   .magnitude = segment.scale,
                   .silent = (h.flags & GS_FLAG_SKIP) != 0,
                   .map = g == 1 && h.flags & GS_FLAG_MAP,
                   .how = codingOf(&r->spec, segment.scale),
                   .whole = g == 0 ? record + s.whole : NULL,
                   .wholeHow = wholeCodingOf(&r->spec, segment.scale)};
    if (gsLayoutHasTable(h.layout))
        v.table = (const uint32_t *)(const void *)(record + at->table);
    if (gsRecordScaleBytes(&shape))
        v.scales = (const float *)(const void *)(record + at->scales);
    if (h.flags & GS_FLAG_REFERENCES && !v.silent)
        memcpy(v.coefficient, record + gsRecordTableEnd(r->spec.tensors), sizeof v.coefficient);
    else if (r->spec.pool && !v.silent)
        v.coefficient[gsOnlyReference(&r->spec, &r->state->call)] = 1.0;
    return v;
}

/* ---- one record's part of a block, added to `sum` ---- */

GS_INLINE void addSlots(gsReal *sum, const groupView *v, const coding *how, uint64_t slot, uint64_t end, uint32_t value)
{
    for (; slot < end; slot++)
        sum[gsReadIndex12(v->indices, slot)] += getSlot(how, value, v->values, slot);
}

/* Two bits a slot, and what each code means in this block. */
static void addBook(gsReal *sum, const groupView *v, const float *book, uint64_t slot, uint64_t end)
{
    for (; slot < end; slot++)
        sum[gsReadIndex12(v->indices, slot)] += (gsReal)book[v->values[slot / 4] >> slot % 4 * 2 & 3u];
}

static void addSigns(gsReal *sum, const groupView *v, uint64_t slot, uint64_t end)
{
    for (; slot < end; slot++)
        sum[gsReadIndex12(v->indices, slot)] +=
            (gsReal)(v->values[slot / 8] >> slot % 8 & 1 ? -v->magnitude : v->magnitude);
}

static void addMap(gsReal *sum, const groupView *v, uint64_t place, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t code = v->values[(place + i) / 4] >> (place + i) % 4 * 2 & 3u;
        if (code)
            sum[i] += (gsReal)(code == 2u ? -v->magnitude : v->magnitude);
    }
}

/* The mask's coordinates, from the own kept bits: all ranks drew the same. */
static void addMasked(const gsReducer_t r, gsReal *sum, const groupView *v, uint64_t b)
{
    const gsCall *c = &r->state->call;
    uint64_t j = r->blockOffset[b];
    uint64_t at = gsBlockAt(&r->spec, b);
    for (uint32_t w = 0; w < GS_BLOCK_WORDS; w++)
        for (uint32_t word = r->keptBits[at * GS_BLOCK_WORDS + w]; word; word &= word - 1, j++) {
            uint64_t slot = gsCallSlot(&r->spec, c, 0, j);
            if (gsCallSlot(&r->spec, c, 0, j + 1) > slot)
                GS_FOR_SLOT_VALUE(r->spec.value,
                                  sum[32 * w + (uint32_t)__builtin_ctz(word)] += getSlot(&v->how, V, v->values, slot));
        }
}

static void addAll(gsReal *sum, const groupView *v, uint64_t b, uint64_t place, uint32_t n)
{
    gsReal decoded[GS_BLOCK];
    coding how = v->how;
    if (v->scales)
        how.scale = v->scales[b];
    getBlock(&how, v->values, place, n, decoded);
    for (uint32_t i = 0; i < n; i++)
        sum[i] += decoded[i];
}

static void addWhole(const gsReducer_t r, gsReal *sum, const groupView *v, uint64_t b)
{
    gsReal decoded[GS_BLOCK];
    uint32_t n = gsBlockLength(&r->spec, b);
    getBlock(&v->wholeHow, v->whole, gsBlockPlace(&r->spec, b), n, decoded);
    for (uint32_t i = 0; i < n; i++)
        sum[i] += decoded[i];
}

/* All of every row that travels; this block's part of it. */
GS_INLINE void addRows(gsReal *sum, const groupView *v, uint64_t slot, uint64_t first, uint32_t n, uint32_t width,
                       uint32_t value)
{
    uint64_t row = first / width;
    uint32_t end;
    for (uint32_t at = 0; at < n; at = end, row++) {
        end = gsRowEnd(row, width, first, n);
        if (!gsRowTravels(v->indices, row))
            continue;
        for (uint32_t i = 0; i < end - at; i++)
            sum[at + i] += getSlot(&v->how, value, v->values, slot + i);
        slot += end - at;
    }
}

static void addBlock(const gsReducer_t r, gsReal *sum, const groupView *v, uint64_t block, int g)
{
    uint64_t slot, end, b = gsBlockInRecord(&r->spec, block);
    uint32_t n = gsBlockLength(&r->spec, block);
    coding how = v->how;
    if (v->silent)
        return;
    if (gsBlockIsWhole(&r->spec, b)) {
        if (v->whole)
            addWhole(r, sum, v, b);
        return;
    }
    switch (r->spec.layout) {
    case GS_LAYOUT_MASK: addMasked(r, sum, v, b); return;
    case GS_LAYOUT_ALL: addAll(sum, v, b, gsBlockPlace(&r->spec, b), n); return;
    case GS_LAYOUT_ROWS:
        if (v->table[b + 1] > v->table[b])
            GS_FOR_SLOT_VALUE(r->spec.value, addRows(sum, v, v->table[b], b * GS_BLOCK, n, r->spec.width, V));
        return;
    case GS_LAYOUT_CHUNKED:
        slot = gsBlockPlace(&r->spec, b);
        end = slot + gsTopkKept(r->spec.k, n);
        break;
    default:
        if (v->map) {
            addMap(sum, v, gsBlockPlace(&r->spec, b), n);
            return;
        }
        slot = v->table[b];
        end = v->table[b + 1];
    }
    if (r->spec.value == GS_VALUE_BOOK) {
        addBook(sum, v, v->scales + GS_BOOK * b, slot, end);
        return;
    }
    if (v->scales)
        how.scale = v->scales[b];
    if (g == 1)
        addSigns(sum, v, slot, end);
    else
        GS_FOR_SLOT_VALUE(r->spec.value, addSlots(sum, v, &how, slot, end, V)); /* a constant inside each loop */
}

/* ---- what the sum becomes ---- */

typedef struct {
    const gsReducer_t r;
    groupView *views;
    int groups;
    const gsReal *dense;             /* a dense step: the sum of everybody's a */
    double coefficient[GS_MAX_POOL]; /* sums over the ranks */
    void *recvbuff;                  /* NULL: the result is an optimizer's gradient */
    gsReal factor;                   /* of the result: 1/ranks for the average, times 1 changes no bits */
} work;

/* A quotient's v counts times its rank's guarded reference. */
static void addQuotient(const work *w, gsReal *sum, const groupView *v, uint64_t b, int g)
{
    const gsReducer_t r = w->r;
    gsReal decoded[GS_BLOCK], reference[GS_BLOCK];
    uint32_t n = gsBlockLength(&r->spec, b), choice = 0;
    while (choice < GS_MAX_POOL && v->coefficient[choice] == 0.0)
        choice++;
    gsReal floor = 0;
    if (choice < GS_MAX_POOL)
        floor = (gsReal)gsQuotientFloor(&r->spec, &r->state->call, choice, v->coefficient[choice]);
    memset(decoded, 0, n * sizeof *decoded);
    addBlock(r, decoded, v, b, g);
    GS_STAGE(gsLoadReference)(r, v->coefficient, b * GS_BLOCK, n, reference);
    for (uint32_t i = 0; i < n; i++)
        sum[i] += decoded[i] * gsGuarded(reference[i], floor);
}

/* The ranks whose records are about block b: first .. end - 1. */
static void ranksOf(const gsSpec *spec, uint64_t b, uint32_t *first, uint32_t *end)
{
    *first = spec->parts ? gsBlockOwner(spec, b) : 0;
    *end = spec->parts ? *first + 1 : spec->nranks;
}

/* The sum of the records, and apart from it the own one. */
static void sumRecords(const work *w, gsReal *sum, gsReal *own, uint64_t b)
{
    const gsReducer_t r = w->r;
    uint32_t n = gsBlockLength(&r->spec, b), first, end;
    memset(sum, 0, n * sizeof *sum);
    ranksOf(&r->spec, b, &first, &end);
    for (uint32_t i = first * (uint32_t)w->groups; i < end * (uint32_t)w->groups; i++) {
        if (r->spec.quotient)
            addQuotient(w, sum, &w->views[i], b, (int)(i % (uint32_t)w->groups));
        else
            addBlock(r, sum, &w->views[i], b, (int)(i % (uint32_t)w->groups));
    }
    if (!r->spec.memory || r->spec.rank < first || r->spec.rank >= end)
        return;
    memset(own, 0, n * sizeof *own);
    for (int g = 0; g < w->groups; g++)
        addBlock(r, own, &w->views[(int)r->spec.rank * w->groups + g], b, g);
}

/* H + nu sum; then h and H take lambda of what was decoded. An owner's h is of its own blocks alone. */
static void useMemory(const work *w, gsReal *sum, const gsReal *own, uint64_t b)
{
    const gsReducer_t r = w->r;
    gsReal *h = (gsReal *)r->memory + gsBlockInRecord(&r->spec, b) * GS_BLOCK,
           *all = (gsReal *)r->shared + b * GS_BLOCK;
    gsReal lambda = (gsReal)r->spec.lambda, nu = (gsReal)r->spec.nu;
    uint32_t n = gsBlockLength(&r->spec, b), first, end;
    ranksOf(&r->spec, b, &first, &end);
    int mine = r->spec.rank >= first && r->spec.rank < end && !r->spec.preview;
    for (uint32_t i = 0; mine && i < n; i++)
        h[i] += lambda * own[i];
    for (uint32_t i = 0; i < n; i++) {
        gsReal result = all[i] + nu * sum[i];
        if (!r->spec.preview)
            all[i] += lambda * sum[i];
        sum[i] = result;
    }
}

/* The references' part of a difference, which the ranks took away. */
static void addReferences(const work *w, gsReal *sum, uint64_t b)
{
    gsReal reference[GS_BLOCK];
    uint32_t n = gsBlockLength(&w->r->spec, b);
    GS_STAGE(gsLoadReference)(w->r, w->coefficient, b * GS_BLOCK, n, reference);
    for (uint32_t i = 0; i < n; i++)
        sum[i] += reference[i];
}

/* How far the result is from each reference, then the references move. Both in the units of one gradient: the mean over ranks. */
static void moveReferences(const work *w, const gsReal *sum, uint64_t b)
{
    const gsReducer_t r = w->r;
    const gsSpec *spec = &r->spec;
    uint64_t first = b * GS_BLOCK, padded = (uint64_t)spec->blocks * GS_BLOCK;
    uint32_t n = gsBlockLength(spec, b);
    gsReal mean[GS_BLOCK], gap[GS_BLOCK], share = (gsReal)1 / (gsReal)spec->nranks;
    for (uint32_t i = 0; i < n; i++)
        mean[i] = sum[i] * share;
    for (uint32_t p = 0; p < GS_MAX_POOL && spec->search == GS_SEARCH_HINDSIGHT; p++) {
        double one[GS_MAX_POOL] = {0};
        one[p] = 1.0;
        if (!(spec->pool >> p & 1u))
            continue;
        GS_STAGE(gsLoadReference)(r, one, first, n, gap);
        for (uint32_t i = 0; i < n; i++)
            gap[i] = mean[i] - gap[i];
        r->blockSum[(uint64_t)(1 + p) * spec->blocks + b] = dotBlock(gap, gap, n);
    }
    if (r->pool[GS_REFERENCE_LAST])
        memcpy((gsReal *)r->pool[GS_REFERENCE_LAST] + first, mean, n * sizeof *mean);
    for (int k = 0; k < 2; k++) {
        gsReal *ema = r->pool[GS_REFERENCE_EMA + k], weight = (gsReal)spec->ema[k];
        for (uint32_t i = 0; ema && i < n; i++)
            ema[first + i] += weight * (mean[i] - ema[first + i]);
    }
    if (r->history)
        memcpy((gsReal *)r->history + r->state->step % spec->window * padded + first, mean, n * sizeof *mean);
    if (r->pool[GS_REFERENCE_SNAPSHOT] && spec->denseNow)
        memcpy((gsReal *)r->pool[GS_REFERENCE_SNAPSHOT] + first, mean, n * sizeof *mean);
}

GS_INLINE void writeBlock(const gsReal *sum, void *block, uint32_t n, gsReal factor, uint32_t type)
{
    for (uint32_t i = 0; i < n; i++)
        storeElement(type, block, i, sum[i] * factor);
}

/* The result: to its buffer, or into the optimizer's step. */
static void deliverBlock(const work *w, gsReal *sum, uint64_t b)
{
    const gsReducer_t r = w->r;
    const gsSpec *spec = &r->spec;
    uint32_t n = gsBlockLength(spec, b);
    if (w->recvbuff) {
        void *block = outputOf(spec, w->recvbuff, spec->spread ? gsBlockAt(spec, b) : b);
        GS_FOR_TYPE(spec->type, writeBlock(sum, block, n, w->factor, T));
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        sum[i] *= w->factor;
    GS_STAGE(gsOptimize)(r->optimizer, sum, gsBlockFirst(spec, b), n);
}

/* An iterate that this rank has just sent a gradient of. */
static void markIterate(const gsReducer_t r, uint64_t first, uint32_t n)
{
    if (r->anchor && r->spec.iterate && !r->state->call.skip)
        memcpy((gsReal *)r->anchor + first, nextOf(r, r->previous) + first, n * sizeof(gsReal));
}

static void finishBlocks(const work *w)
{
    const gsReducer_t r = w->r;
    const gsSpec *spec = &r->spec;
    GS_FOR_BLOCKS(r, b, )
    {
        gsReal sum[GS_BLOCK], own[GS_BLOCK];
        uint64_t first = (uint64_t)b * GS_BLOCK;
        uint32_t n = gsBlockLength(spec, (uint64_t)b);
        if (w->dense)
            memcpy(sum, w->dense + first, n * sizeof *sum);
        else
            sumRecords(w, sum, own, (uint64_t)b);
        if (spec->memory)
            useMemory(w, sum, w->dense ? (const gsReal *)r->work + first : own, (uint64_t)b);
        if (spec->pool && !spec->quotient && !spec->denseNow)
            addReferences(w, sum, (uint64_t)b);
        if (spec->trigger)
            r->blockSum[b] = dotBlock(sum, sum, n);
        if (spec->pool && !spec->preview)
            moveReferences(w, sum, (uint64_t)b);
        if (!spec->preview)
            markIterate(r, first, n);
        deliverBlock(w, sum, (uint64_t)b);
    }
}

static void foldResults(gsReducer_t r)
{
    if (r->spec.trigger)
        r->state->resultNorm = foldBlocks(r->blockSum, r->spec.blocks);
    for (uint32_t p = 0; p < GS_MAX_POOL && r->spec.search == GS_SEARCH_HINDSIGHT; p++)
        if (r->spec.pool >> p & 1u)
            r->state->missed[p] = foldBlocks(r->blockSum + (uint64_t)(1 + p) * r->spec.blocks, r->spec.blocks);
}

void GS_STAGE(gsAccumulate)(gsReducer_t r, const uint8_t *records, const void *sum, void *recvbuff, gsRedOp_t op)
{
    int groups = gsRecordGroups(r->spec.value);
    groupView views[2 * r->spec.nranks];
    work w = {.r = r,
              .views = views,
              .groups = groups,
              .dense = sum,
              .recvbuff = recvbuff,
              .factor = op == GS_AVG ? (gsReal)1 / (gsReal)r->spec.nranks : (gsReal)1};
    if (sum) /* of owners' sums; 0 in a dense step */
        memcpy(w.coefficient, r->state->call.total, sizeof w.coefficient);
    for (uint32_t i = 0; i < r->spec.nranks && !sum; i++)
        for (int g = 0; g < groups; g++) {
            groupView *v = &views[i * (uint32_t)groups + (uint32_t)g];
            *v = viewGroup(r, records + i * r->spec.slotBytes, g);
            for (int p = 0; p < GS_MAX_POOL && g == 0; p++)
                w.coefficient[p] += v->coefficient[p];
        }
    finishBlocks(&w);
    foldResults(r);
}
