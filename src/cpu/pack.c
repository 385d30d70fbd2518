/*
 * Packing: kept bits -> the record's table, values and indices. A block's survivors are listed first (level 1 cache), then
 * written to their slots. Blocks share bytes at the seams of the 12-bit indices and the sign bits: those are combined by atomic
 * or, over sections that were cleared first.
 */
#include "stages.h"

/* One group's coordinates of one block that are in the record: slots first .. first + n - 1. */
typedef struct {
    uint64_t first;
    uint32_t n;
    uint16_t index[GS_BLOCK];
} survivors;

GS_INLINE int groupOf(const gsSpec *spec, const gsCall *c, const void *sendbuff, uint64_t i, uint32_t type)
{
    return spec->value == GS_VALUE_SHARED && !(c->s * fabsf(loadElement(type, sendbuff, i)) >= 1.0f);
}

/* Lists the kept coordinates of block b in group g that stay. */
GS_INLINE void listSurvivors(gsReducer_t r, const void *sendbuff, uint64_t b, int g, survivors *out, uint32_t type)
{
    const gsSpec *spec = &r->spec;
    const gsCall *c = &r->state->call;
    const uint32_t *bits = r->keptBits + b * GS_BLOCK_WORDS;
    uint64_t j = r->blockOffset[(uint64_t)g * (spec->blocks + 1) + b];
    int whole = c->group[g].sent == c->group[g].kept && !c->nonFinite; /* everything kept is sent: slot j is j */
    out->first = gsCallSlot(spec, c, g, j);
    out->n = 0;
    for (uint32_t w = 0; w < GS_BLOCK_WORDS; w++)
        for (uint32_t word = bits[w]; word; word &= word - 1) {
            uint32_t index = 32 * w + (uint32_t)__builtin_ctz(word);
            if (groupOf(spec, c, sendbuff, b * GS_BLOCK + index, type) != g)
                continue;
            if (whole || gsCallSlot(spec, c, g, j + 1) > gsCallSlot(spec, c, g, j))
                out->index[out->n++] = (uint16_t)index;
            j++;
        }
}

/* ---- values ---- */

/* What travels leaves the residual; what the rounding takes away stays in it. */
GS_INLINE void writeFeedbackValues(gsReducer_t r, uint64_t b, const survivors *s, uint8_t *values)
{
    float *a = r->residual[r->state->phase ^ 1] + b * GS_BLOCK;
    if (r->spec.value == GS_VALUE_F32) {
        float *out = (float *)(void *)values + s->first;
        for (uint32_t i = 0; i < s->n; i++) {
            out[i] = a[s->index[i]];
            a[s->index[i]] = 0.0f;
        }
        return;
    }
    uint16_t *out = (uint16_t *)(void *)values + s->first;
    for (uint32_t i = 0; i < s->n; i++) {
        float x = a[s->index[i]];
        out[i] = gsToBf16Value(x);
        a[s->index[i]] = x - gsFromBf16(out[i]);
    }
}

GS_INLINE void writeUnbiasedValues(gsReducer_t r, const void *sendbuff, uint64_t b, const survivors *s, uint8_t *values,
                                   uint32_t type)
{
    const gsSpec *spec = &r->spec;
    const gsCall *c = &r->state->call;
    for (uint32_t i = 0; i < s->n; i++) {
        uint64_t at = b * GS_BLOCK + s->index[i];
        float g = loadElement(type, sendbuff, at);
        float v = spec->select == GS_SELECT_RANDK ? g * c->inverse : gsGsparValue(g, c->s, c->inverse);
        v = gsSaturate(v * c->group[0].gain);
        if (spec->value == GS_VALUE_BF16)
            ((uint16_t *)(void *)values)[s->first + i] =
                gsToBf16Stochastic(v, gsDraw(spec->seed, at, c->step, spec->rank, GS_DRAW_ROUND));
        else
            ((float *)(void *)values)[s->first + i] = v;
    }
}

GS_INLINE void writeSigns(const void *sendbuff, uint64_t b, const survivors *s, uint8_t *signs, uint32_t type)
{
    for (uint32_t i = 0; i < s->n; i++) {
        uint64_t slot = s->first + i;
        if (gsBits(loadElement(type, sendbuff, b * GS_BLOCK + s->index[i])) >> 31)
            __atomic_fetch_or(&signs[slot / 8], (uint8_t)(1u << slot % 8), __ATOMIC_RELAXED);
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

GS_INLINE void packGroup(gsReducer_t r, const void *sendbuff, uint8_t *record, uint64_t b, int g, uint32_t type)
{
    const gsSpec *spec = &r->spec;
    const gsRecordGroup *at = &r->state->call.sections.group[g];
    survivors s;
    listSurvivors(r, sendbuff, b, g, &s, type);
    if (spec->layout == GS_LAYOUT_GLOBAL)
        ((uint32_t *)(void *)(record + at->table))[b] = (uint32_t)s.first;
    if (spec->feedback)
        writeFeedbackValues(r, b, &s, record + at->values);
    else if (g == 1)
        writeSigns(sendbuff, b, &s, record + at->values, type);
    else
        writeUnbiasedValues(r, sendbuff, b, &s, record + at->values, type);
    if (spec->layout != GS_LAYOUT_MASK)
        writeIndices(&s, record + at->indices);
}

GS_INLINE void packBlocks(gsReducer_t r, const void *sendbuff, uint8_t *record, uint32_t type)
{
    int groups = gsRecordGroups(r->spec.value);
    GS_FOR_BLOCKS(r, b)
    {
        for (int g = 0; g < groups; g++)
            packGroup(r, sendbuff, record, (uint64_t)b, g, type);
    }
}

/* Bytes that are written by parts or not at all: the indices, the sign bits and the ends of the sections. */
static void clearSections(const gsSpec *spec, const gsCall *c, uint8_t *record)
{
    for (int g = 0; g < gsRecordGroups(spec->value); g++) {
        const gsRecordGroup *at = &c->sections.group[g];
        uint64_t end = g + 1 < gsRecordGroups(spec->value) ? c->sections.group[g + 1].table : c->sections.bytes;
        uint64_t values = at->values;
        if (at->values > at->table)
            memset(record + at->values - GS_RECORD_ALIGN, 0, GS_RECORD_ALIGN);
        if (g == 0 && at->indices > values)
            values = at->indices - GS_RECORD_ALIGN; /* whole values are written anyway */
        memset(record + values, 0, end - values);
    }
}

static void closeTables(const gsSpec *spec, const gsCall *c, uint8_t *record)
{
    for (int g = 0; g < gsRecordGroups(spec->value) && spec->layout == GS_LAYOUT_GLOBAL; g++)
        ((uint32_t *)(void *)(record + c->sections.group[g].table))[spec->blocks] = (uint32_t)c->group[g].sent;
}

void GS_STAGE(gsPack)(gsReducer_t r, const void *sendbuff, uint8_t *record)
{
    const gsCall *c = &r->state->call;
    gsRecordHeader header = gsCallHeader(&r->spec, r->state);
    gsRecordSegment segment = gsCallSegment(&r->spec, c);
    clearSections(&r->spec, c, record);
    GS_FOR_TYPE(r->spec.type, packBlocks(r, sendbuff, record, T));
    closeTables(&r->spec, c, record);
    memcpy(record, &header, sizeof header);
    memcpy(record + sizeof header, &segment, sizeof segment);
    header.checksum =
        GS_STAGE(gsChecksum)(r, record, gsChecksumKey(header.configHash, header.step, header.rank), header.recordBytes);
    memcpy(record, &header, sizeof header);
}
