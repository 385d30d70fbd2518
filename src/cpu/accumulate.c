/*
 * Accumulation: all ranks' records -> their sum in rank order. Block by block: 16 KiB of sums stay in level 1 cache while every
 * record adds its few coordinates, and the result is written once. The records have been validated.
 */
#include "stages.h"

/* What accumulate reads of a record, for one group. */
typedef struct {
    const uint32_t *table; /* NULL: block b begins at slot b k, or the mask's */
    const uint8_t *values, *indices;
    uint64_t slots;
    float magnitude; /* of a sign bit; group 1 only */
} groupView;

static groupView viewGroup(const uint8_t *record, int g)
{
    gsRecordHeader h;
    gsRecordSegment segment;
    uint64_t slots[2];
    memcpy(&h, record, sizeof h);
    memcpy(&segment, record + sizeof h, sizeof segment);
    gsRecordSlots(&h, &segment, slots);
    uint32_t blocks = (uint32_t)((h.count + GS_BLOCK - 1) / GS_BLOCK);
    gsRecordSections s = gsRecordLayout(h.layout, h.value, blocks, slots);
    return (groupView){
        .table = h.layout == GS_LAYOUT_GLOBAL ? (const uint32_t *)(const void *)(record + s.group[g].table) : NULL,
        .values = record + s.group[g].values,
        .indices = record + s.group[g].indices,
        .slots = slots[g],
        .magnitude = segment.scale};
}

GS_INLINE float readValue(const groupView *v, uint64_t slot, uint32_t value, int g)
{
    if (value == GS_VALUE_BF16)
        return gsFromBf16(((const uint16_t *)(const void *)v->values)[slot]);
    if (value == GS_VALUE_SHARED && g == 1)
        return v->values[slot / 8] >> slot % 8 & 1 ? -v->magnitude : v->magnitude;
    return ((const float *)(const void *)v->values)[slot];
}

GS_INLINE void addSlots(float *sum, const groupView *v, uint64_t slot, uint64_t end, uint32_t value, int g)
{
    for (; slot < end; slot++)
        sum[gsReadIndex12(v->indices, slot)] += readValue(v, slot, value, g);
}

/* The mask's coordinates, from the own kept bits: all ranks drew the same. */
static void addMasked(const gsReducer_t r, float *sum, const groupView *v, uint64_t b)
{
    const gsCall *c = &r->state->call;
    uint64_t j = r->blockOffset[b];
    for (uint32_t w = 0; w < GS_BLOCK_WORDS; w++)
        for (uint32_t word = r->keptBits[b * GS_BLOCK_WORDS + w]; word; word &= word - 1, j++) {
            uint64_t slot = gsCallSlot(&r->spec, c, 0, j);
            if (gsCallSlot(&r->spec, c, 0, j + 1) > slot)
                sum[32 * w + (uint32_t)__builtin_ctz(word)] += readValue(v, slot, r->spec.value, 0);
        }
}

static void addBlock(const gsReducer_t r, float *sum, const groupView *v, uint64_t b, int g)
{
    uint64_t slot, end;
    if (r->spec.layout == GS_LAYOUT_MASK) {
        addMasked(r, sum, v, b);
        return;
    }
    if (v->table) {
        slot = v->table[b];
        end = v->table[b + 1];
    } else {
        slot = b * r->spec.k;
        end = slot + gsTopkKept(r->spec.k, blockLength(&r->spec, b));
    }
    switch (r->spec.value) { /* a constant inside each loop */
    case GS_VALUE_F32: addSlots(sum, v, slot, end, GS_VALUE_F32, 0); break;
    case GS_VALUE_BF16: addSlots(sum, v, slot, end, GS_VALUE_BF16, 0); break;
    default: addSlots(sum, v, slot, end, GS_VALUE_SHARED, g); break;
    }
}

GS_INLINE void writeBlock(const float *sum, void *recvbuff, uint64_t first, uint32_t n, float factor, uint32_t type)
{
    for (uint32_t i = 0; i < n; i++)
        storeElement(type, recvbuff, first + i, sum[i] * factor);
}

GS_INLINE void sumBlocks(gsReducer_t r, const groupView *views, int groups, void *recvbuff, float factor, uint32_t type)
{
    GS_FOR_BLOCKS(r, b)
    {
        float sum[GS_BLOCK];
        memset(sum, 0, sizeof sum);
        for (uint32_t i = 0; i < r->spec.nranks * (uint32_t)groups; i++)
            addBlock(r, sum, &views[i], (uint64_t)b, (int)(i % (uint32_t)groups));
        writeBlock(sum, recvbuff, (uint64_t)b * GS_BLOCK, blockLength(&r->spec, (uint64_t)b), factor, type);
    }
}

void GS_STAGE(gsAccumulate)(gsReducer_t r, const uint8_t *records, void *recvbuff, gsRedOp_t op)
{
    int groups = gsRecordGroups(r->spec.value);
    float factor = op == GS_AVG ? 1.0f / (float)r->spec.nranks : 1.0f; /* x * 1 is x, bit for bit */
    groupView views[2 * r->spec.nranks];
    for (uint32_t i = 0; i < r->spec.nranks; i++)
        for (int g = 0; g < groups; g++)
            views[i * (uint32_t)groups + (uint32_t)g] = viewGroup(records + i * r->spec.slotBytes, g);
    GS_FOR_TYPE(r->spec.type, sumBlocks(r, views, groups, recvbuff, factor, T));
}
