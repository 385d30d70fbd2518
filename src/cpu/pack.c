/*
 * Packing: kept bits -> the record's table, values and indices. A block's survivors are listed first (level 1 cache), then
 * written to their slots. Blocks share bytes at the seams of the 12-bit indices and the sign bits: those are combined by atomic
 * or, over sections that were cleared first.
 */
#include "codec.h"

/* One group's coordinates of one block that are in the record: slots first .. first + n - 1. */
typedef struct {
    uint64_t first;
    uint32_t n;
    uint16_t index[GS_BLOCK];
} survivors;

GS_INLINE int groupOf(const gsSpec *spec, const gsCall *c, gsVector block, uint32_t i, uint32_t type)
{
    return spec->value == GS_VALUE_SHARED && !((gsReal)c->s * gsAbs(loadElement(type, block.values, i)) >= (gsReal)1);
}

/* Lists the kept coordinates of block b in group g that stay. */
GS_INLINE void listSurvivors(gsReducer_t r, gsVector block, uint64_t b, int g, survivors *out, uint32_t type)
{
    const gsSpec *spec = &r->spec;
    const gsCall *c = &r->state->call;
    uint64_t at = gsBlockAt(spec, b);
    const uint32_t *bits = r->keptBits + at * GS_BLOCK_WORDS;
    uint64_t j = r->blockOffset[(uint64_t)g * (spec->blocks + 1) + b];
    int whole = c->group[g].sent == c->group[g].kept && !c->nonFinite; /* everything kept is sent: slot j is j */
    out->first = gsCallSlot(spec, c, g, j);
    out->n = 0;
    for (uint32_t w = 0; w < GS_BLOCK_WORDS; w++)
        for (uint32_t word = bits[w]; word; word &= word - 1) {
            uint32_t index = 32 * w + (uint32_t)__builtin_ctz(word);
            if (groupOf(spec, c, block, index, type) != g)
                continue;
            if (whole || gsCallSlot(spec, c, g, j + 1) > gsCallSlot(spec, c, g, j))
                out->index[out->n++] = (uint16_t)index;
            j++;
        }
}

/* ---- values ---- */

/* What a kept coordinate sends, before its coding. */
GS_INLINE gsReal valueOf(const gsSpec *spec, const gsCall *c, gsReal x)
{
    gsReal gain = (gsReal)c->group[0].gain;
    switch (spec->select) {
    case GS_SELECT_RANDK: return x * (gsReal)c->inverse * gain;
    case GS_SELECT_GSPAR: return gsGsparValue(x, (gsReal)c->s, (gsReal)c->inverse) * gain;
    default: return x;
    }
}

/* What travels leaves the residual, and the momentum with it; what the coding takes away stays. */
GS_INLINE void settle(gsReducer_t r, uint64_t at, gsReal x, gsReal decoded)
{
    if (r->spec.feedback)
        nextOf(r, r->residual)[at] = x - decoded;
    if (r->spec.momentum > 0.0)
        nextOf(r, r->momentum)[at] = 0;
}

/* Means of the block's four bins, by the tree over slots; the bins about the mean of all. */
static void makeBook(const gsReal *v, uint32_t n, double *mean, double *width, float book[GS_BOOK])
{
    double lane[GS_BOOK + 1][GS_LANES] = {{0}}, squares;
    uint32_t members[GS_BOOK] = {0};
    for (uint32_t i = 0; i < n; i++)
        lane[GS_BOOK][i % GS_LANES] += (double)v[i];
    *mean = n ? foldLanes(lane[GS_BOOK]) / (double)n : 0.0;
    squares = n ? dotBlock(v, v, n) / (double)n - *mean * *mean : 0.0;
    *width = 1.5 * sqrt(squares > 0.0 ? squares : 0.0);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t code = gsBookCode(v[i], *mean, *width);
        lane[code][i % GS_LANES] += (double)v[i];
        members[code]++;
    }
    for (int code = 0; code < GS_BOOK; code++)
        book[code] = members[code] ? gsSaturate((float)(foldLanes(lane[code]) / (double)members[code])) : 0.0f;
}

/* Two bits a slot; the first and the last byte may be shared with other blocks. */
static void writeBook(gsReducer_t r, uint64_t b, const survivors *s, const gsReal *v, uint8_t *record)
{
    const gsRecordGroup *at = &r->state->call.sections.group[0];
    float *book = (float *)(void *)(record + at->scales) + GS_BOOK * b;
    double mean, width;
    makeBook(v, s->n, &mean, &width, book);
    for (uint32_t i = 0; i < s->n; i++) {
        uint64_t slot = s->first + i;
        uint32_t code = gsBookCode(v[i], mean, width);
        __atomic_fetch_or(&record[at->values + slot / 4], (uint8_t)(code << slot % 4 * 2), __ATOMIC_RELAXED);
        settle(r, gsBlockAt(&r->spec, b) * GS_BLOCK + s->index[i], v[i], (gsReal)book[code]);
    }
}

GS_INLINE void writeValues(gsReducer_t r, gsVector block, uint64_t b, const survivors *s, uint8_t *record,
                           uint32_t type)
{
    const gsSpec *spec = &r->spec;
    const gsCall *c = &r->state->call;
    const gsRecordGroup *at = &c->sections.group[0];
    coding how = codingOf(spec, c->scale);
    int draws = gsSlotDraws(spec);
    uint64_t first = gsBlockAt(spec, b) * GS_BLOCK;
    uint32_t word = 0;
    gsReal v[GS_BLOCK];
    for (uint32_t i = 0; i < s->n; i++)
        v[i] = valueOf(spec, c, loadElement(type, block.values, s->index[i]));
    if (spec->value == GS_VALUE_BOOK) {
        writeBook(r, b, s, v, record);
        return;
    }
    if (spec->value == GS_VALUE_LEVELS) {
        how.scale = scaleOfBlock(GS_VALUE_LEVELS, v, s->n); /* QSGD's norm, of the survivors */
        ((float *)(void *)(record + at->scales))[b] = how.scale;
    }
    for (uint32_t i = 0; i < s->n; i++) {
        uint64_t element = first + s->index[i];
        if (draws)
            word = gsDraw(spec->seed, element, c->step, spec->rank, GS_DRAW_ROUND);
        GS_FOR_SLOT_VALUE(spec->value, {
            putSlot(&how, V, record + at->values, s->first + i, v[i], word);
            settle(r, element, v[i], getSlot(&how, V, record + at->values, s->first + i));
        });
    }
}

GS_INLINE void writeSigns(gsVector block, const survivors *s, uint8_t *signs, uint32_t type)
{
    for (uint32_t i = 0; i < s->n; i++) {
        uint64_t slot = s->first + i;
        if (loadElement(type, block.values, s->index[i]) < (gsReal)0)
            __atomic_fetch_or(&signs[slot / 8], (uint8_t)(1u << slot % 8), __ATOMIC_RELAXED);
    }
}

/* A block's map is bytes of its own. */
GS_INLINE void writeMap(gsVector block, uint64_t place, const survivors *s, uint8_t *map, uint32_t type)
{
    for (uint32_t i = 0; i < s->n; i++) {
        uint64_t at = place + s->index[i];
        uint32_t code = loadElement(type, block.values, s->index[i]) < (gsReal)0 ? 2u : 1u;
        map[at / 4] |= (uint8_t)(code << at % 4 * 2);
    }
}

/* ---- indices ---- */

/* Pairs of slots fill three bytes. An odd first slot and a last one without its partner share their middle byte. */
GS_INLINE void writeIndices(const survivors *s, uint8_t *indices)
{
    uint32_t i = 0;
    uint64_t slot = s->first;
    if (s->n > 0 && slot % 2 == 1) {
        uint8_t *at = indices + slot / 2 * 3 + 1;
        __atomic_fetch_or(at, (uint8_t)(s->index[0] << 4), __ATOMIC_RELAXED);
        at[1] = (uint8_t)(s->index[0] >> 4);
        i = 1;
        slot++;
    }
    for (; i + 1 < s->n; i += 2, slot += 2) {
        uint8_t *at = indices + slot / 2 * 3;
        at[0] = (uint8_t)s->index[i];
        at[1] = (uint8_t)(s->index[i] >> 8 | s->index[i + 1] << 4);
        at[2] = (uint8_t)(s->index[i + 1] >> 4);
    }
    if (i < s->n) {
        uint8_t *at = indices + slot / 2 * 3;
        at[0] = (uint8_t)s->index[i];
        __atomic_fetch_or(at + 1, (uint8_t)(s->index[i] >> 8), __ATOMIC_RELAXED);
    }
}

/* ---- the record ---- */

GS_INLINE void packGroup(gsReducer_t r, gsVector x, uint8_t *record, uint64_t b, int g, uint32_t type)
{
    const gsSpec *spec = &r->spec;
    const gsCall *c = &r->state->call;
    const gsRecordGroup *at = &c->sections.group[g];
    int map = g == 1 && c->flags & GS_FLAG_MAP;
    gsVector block = blockOf(x, gsBlockAt(spec, b));
    survivors s;
    listSurvivors(r, block, b, g, &s, type);
    if (gsLayoutHasTable(spec->layout) && !map)
        ((uint32_t *)(void *)(record + at->table))[b] = (uint32_t)s.first;
    if (map) {
        writeMap(block, gsBlockPlace(spec, b), &s, record + at->values, type);
        return;
    }
    if (g == 1)
        writeSigns(block, &s, record + at->values, type);
    else
        writeValues(r, block, b, &s, record, type);
    if (gsLayoutHasIndices(spec->layout))
        writeIndices(&s, record + at->indices);
}

GS_INLINE void loadBlock(gsVector block, uint32_t n, gsReal *a, uint32_t type)
{
    for (uint32_t i = 0; i < n; i++)
        a[i] = loadElement(type, block.values, i);
}

/* A block that travels whole, and what rounding takes from it. Its momentum goes on: nothing of it waits. */
static void packWhole(gsReducer_t r, gsVector x, uint8_t *record, uint64_t b)
{
    const gsSpec *spec = &r->spec;
    const gsCall *c = &r->state->call;
    gsReal a[GS_BLOCK], decoded[GS_BLOCK];
    uint32_t words[GS_BLOCK], n = gsBlockLength(spec, b);
    uint64_t of = gsBlockAt(spec, b), first = of * GS_BLOCK;
    uint8_t *values = record + c->sections.whole;
    coding how = wholeCodingOf(spec, c->scale);
    if (c->nonFinite)
        return;
    GS_FOR_TYPE(x.type, loadBlock(blockOf(x, of), n, a, T));
    drawBlock(spec->seed, first / 4, c->step, spec->rank, GS_DRAW_ROUND, words);
    putBlock(&how, values, gsBlockPlace(spec, b), n, a, words);
    if (!spec->feedback)
        return;
    getBlock(&how, values, gsBlockPlace(spec, b), n, decoded);
    for (uint32_t i = 0; i < n; i++)
        nextOf(r, r->residual)[first + i] = a[i] - decoded[i];
}

static void packBlocks(gsReducer_t r, gsVector x, uint8_t *record)
{
    int groups = gsRecordGroups(r->spec.value);
    GS_FOR_BLOCKS(r, b, )
    {
        if (gsBlockIsWhole(&r->spec, (uint64_t)b))
            packWhole(r, x, record, (uint64_t)b);
        for (int g = 0; g < groups; g++)
            GS_FOR_TYPE(x.type, packGroup(r, x, record, (uint64_t)b, g, T));
    }
}

/* Behind a tensor's last code, up to where the next one's begin. */
static void fillUp(uint8_t *values, uint64_t place, uint32_t n, uint32_t bits)
{
    uint64_t full = gsListPlaces(n), used = ((uint64_t)n * bits + 7) / 8;
    memset(values + place * bits / 8 + used, 0, full * bits / 8 - used);
}

/* Every coordinate: scale, codes, and what the coding takes away. */
static void packAll(gsReducer_t r, gsVector x, uint8_t *record)
{
    const gsSpec *spec = &r->spec;
    const gsCall *c = &r->state->call;
    const gsRecordGroup *at = &c->sections.group[0];
    int scaled = gsValueIsScaled(spec->value), one = (spec->aux & GS_RECORD_ONE_SCALE) != 0;
    GS_FOR_BLOCKS(r, b, )
    {
        gsReal a[GS_BLOCK], decoded[GS_BLOCK];
        uint32_t words[GS_BLOCK], n = gsBlockLength(spec, (uint64_t)b);
        uint64_t of = gsBlockAt(spec, (uint64_t)b), first = of * GS_BLOCK, place = gsBlockPlace(spec, (uint64_t)b);
        coding how = codingOf(spec, c->scale);
        if (gsBlockIsWhole(spec, (uint64_t)b)) {
            if (scaled && !one)
                ((float *)(void *)(record + at->scales))[b] = 0.0f;
            packWhole(r, x, record, (uint64_t)b);
            continue;
        }
        GS_FOR_TYPE(x.type, loadBlock(blockOf(x, of), n, a, T));
        if (scaled && !one)
            ((float *)(void *)(record + at->scales))[b] = how.scale = scaleOfBlock(spec->value, a, n);
        if (spec->value != GS_VALUE_SIGN && spec->value != GS_VALUE_GRID)
            drawBlock(spec->seed, first / 4, c->step, spec->rank, GS_DRAW_ROUND, words);
        putBlock(&how, record + at->values, place, n, a, words);
        if (spec->list)
            fillUp(record + at->values, place, n, how.bits);
        if (!spec->feedback)
            continue;
        getBlock(&how, record + at->values, place, n, decoded);
        for (uint32_t i = 0; i < n; i++)
            settle(r, first + i, a[i], decoded[i]);
    }
}

/* Before anything is packed: the same scales, codes and decoded values. */
gsCodedNorms GS_STAGE(gsMeasureCoding)(gsReducer_t r, gsVector x)
{
    const gsSpec *spec = &r->spec;
    const gsReal *a = x.values;
    double *coded = r->blockSum, *error = coded + spec->blocks;
    GS_FOR_BLOCKS(r, b, )
    {
        gsReal decoded[GS_BLOCK];
        uint32_t n = gsBlockLength(spec, (uint64_t)b);
        const gsReal *from = a + b * GS_BLOCK;
        coding how = codingOf(spec, r->state->call.scale);
        if (!(spec->aux & GS_RECORD_ONE_SCALE))
            how.scale = scaleOfBlock(spec->value, from, n);
        for (uint32_t i = 0; i < n; i++)
            decoded[i] = (gsReal)gsGridDecode(gsGridCode(from[i], how.scale, how.levels), how.scale, how.levels);
        coded[b] = dotBlock(decoded, decoded, n);
        for (uint32_t i = 0; i < n; i++)
            decoded[i] = from[i] - decoded[i];
        error[b] = dotBlock(decoded, decoded, n);
    }
    return (gsCodedNorms){foldBlocks(coded, spec->blocks), foldBlocks(error, spec->blocks)};
}

/* A section's last bytes, which may be padding. */
static void clearEnd(uint8_t *record, uint64_t begin, uint64_t end)
{
    if (end > begin)
        memset(record + end - GS_RECORD_ALIGN, 0, GS_RECORD_ALIGN);
}

/* Bytes that are written by parts or not at all: indices, sign bits, the map, two-bit codes, the ends of the other
 * sections. */
static void clearSections(const gsSpec *spec, const gsCall *c, uint8_t *record)
{
    clearEnd(record, c->sections.whole, c->sections.group[0].table);
    for (int g = 0; g < gsRecordGroups(spec->value); g++) {
        const gsRecordGroup *at = &c->sections.group[g];
        uint64_t end = g + 1 < gsRecordGroups(spec->value) ? c->sections.group[g + 1].table : c->sections.bytes;
        clearEnd(record, at->table, at->scales);
        clearEnd(record, at->scales, at->values);
        uint64_t parts = g == 0 && spec->value != GS_VALUE_BOOK ? at->indices : at->values;
        clearEnd(record, at->values, at->indices);
        memset(record + parts, 0, end - parts);
    }
}

static void closeTables(const gsSpec *spec, const gsCall *c, uint8_t *record)
{
    int groups = c->flags & GS_FLAG_MAP ? 1 : gsRecordGroups(spec->value);
    for (int g = 0; g < groups && gsLayoutHasTable(spec->layout); g++)
        ((uint32_t *)(void *)(record + c->sections.group[g].table))[spec->blocks] = (uint32_t)c->group[g].sent;
}

static void packRows(gsReducer_t r, uint8_t *record)
{
    const gsSpec *spec = &r->spec;
    const gsCall *c = &r->state->call;
    if (spec->layout == GS_LAYOUT_ROWS && spec->count && !c->nonFinite)
        memcpy(record + c->sections.group[0].indices, r->rowBits, (gsRecordRows(spec->count, spec->width) + 7) / 8);
}

static void packSections(gsReducer_t r, gsVector x, uint8_t *record)
{
    const gsSpec *spec = &r->spec;
    const gsCall *c = &r->state->call;
    if (c->flags & GS_FLAG_SKIP)
        return;
    if (c->flags & GS_FLAG_REFERENCES)
        memcpy(record + gsRecordTableEnd(spec->tensors), c->coefficient, sizeof c->coefficient);
    clearSections(spec, c, record);
    if (spec->layout == GS_LAYOUT_ALL && !c->nonFinite)
        packAll(r, x, record);
    else if (spec->layout != GS_LAYOUT_ALL)
        packBlocks(r, x, record);
    else
        memset(record + c->sections.group[0].table, 0, c->sections.bytes - c->sections.group[0].table);
    packRows(r, record);
    closeTables(spec, c, record);
}

/* x: the gradient, or what was prepared; with feedback the residual to be. */
void GS_STAGE(gsPack)(gsReducer_t r, gsVector x, uint8_t *record)
{
    gsRecordHeader header = gsCallHeader(&r->spec, r->state);
    gsRecordSegment segment = gsCallSegment(&r->spec, r->state);
    packSections(r, x, record);
    memcpy(record, &header, sizeof header);
    memcpy(record + sizeof header, &segment, sizeof segment);
    if (r->spec.tensors)
        memcpy(record + GS_RECORD_SECTIONS, r->spec.entries, r->spec.tensors * sizeof segment);
    header.checksum =
        GS_STAGE(gsChecksum)(r, record, gsChecksumKey(header.configHash, header.step, header.rank), header.recordBytes);
    memcpy(record, &header, sizeof header);
}
