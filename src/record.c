/* Records in host memory: what makes one valid, and gsRecordInspect. */
#include "record.h"

#include <string.h>

uint64_t gsRecordChecksum(const uint8_t *record, const gsRecordHeader *h)
{
    uint64_t key = gsChecksumKey(h->configHash, h->step, h->rank), sum = 0, word;
    for (uint64_t j = 0; j < h->recordBytes / 8; j++) {
        memcpy(&word, record + 8 * j, 8);
        if (j != GS_RECORD_CHECKSUM_WORD)
            sum += gsChecksumTerm(key, j, word);
    }
    return sum;
}

static uint32_t readTable(const uint8_t *table, uint64_t b)
{
    uint32_t slot;
    memcpy(&slot, table + 4 * b, 4);
    return slot;
}

/* Indices of one block: below its length, strictly increasing. */
static int indicesValid(const uint8_t *indices, uint64_t slot, uint64_t end, uint32_t length)
{
    int64_t last = -1;
    for (; slot < end; slot++) {
        uint32_t index = gsReadIndex12(indices, slot);
        if ((int64_t)index <= last || index >= length)
            return 0;
        last = index;
    }
    return 1;
}

static uint32_t groupFault(const uint8_t *record, const gsRecordHeader *h, const gsRecordSegment *segment,
                           const gsRecordGroup *at, uint64_t slots)
{
    uint64_t blocks = (h->count + GS_BLOCK - 1) / GS_BLOCK, slot = 0;
    if (h->layout == GS_LAYOUT_GLOBAL && readTable(record + at->table, 0) != 0)
        return GS_FAULT_TABLE;
    for (uint64_t b = 0; b < blocks; b++) {
        uint64_t left = h->count - b * GS_BLOCK;
        uint32_t length = left < GS_BLOCK ? (uint32_t)left : GS_BLOCK;
        uint64_t end = h->layout == GS_LAYOUT_GLOBAL ? readTable(record + at->table, b + 1)
                                                     : slot + gsTopkKept(segment->aux, length);
        if (end < slot || end > slots || end - slot > length)
            return GS_FAULT_TABLE;
        if (!indicesValid(record + at->indices, slot, end, length))
            return GS_FAULT_INDEX;
        slot = end;
    }
    return slot == slots ? GS_FAULT_NONE : GS_FAULT_TABLE;
}

uint32_t gsRecordStructureFault(const uint8_t *record, const gsRecordHeader *h, const gsRecordSegment *segment)
{
    uint64_t slots[2];
    gsRecordSlots(h, segment, slots);
    gsRecordSections s = gsRecordLayout(h->layout, h->value, (uint32_t)((h->count + GS_BLOCK - 1) / GS_BLOCK), slots);
    if (h->layout == GS_LAYOUT_MASK || (h->layout == GS_LAYOUT_CHUNKED && h->flags & GS_FLAG_NONFINITE))
        return GS_FAULT_NONE; /* no indices */
    for (int g = 0; g < gsRecordGroups(h->value); g++) {
        uint32_t fault = groupFault(record, h, segment, &s.group[g], slots[g]);
        if (fault)
            return fault;
    }
    return GS_FAULT_NONE;
}

static gsResult_t corrupt(uint32_t fault)
{
    return gsFail(GS_ERROR_CORRUPT, "the record %s", gsFaultText(fault));
}

static uint64_t valueBytes(const gsRecordHeader *h, const uint64_t slots[2])
{
    uint64_t sum = 0;
    for (int g = 0; g < gsRecordGroups(h->value); g++)
        sum += gsRecordValueBytes(h->value, g, slots[g]);
    return sum;
}

/* What tells where the values belong: tables and indices. */
static uint64_t indexBytes(const gsRecordHeader *h, const uint64_t slots[2])
{
    uint32_t blocks = (uint32_t)((h->count + GS_BLOCK - 1) / GS_BLOCK);
    uint64_t sum = 0;
    for (int g = 0; g < gsRecordGroups(h->value); g++)
        sum += gsRecordTableBytes(h->layout, blocks) + gsRecordIndexBytes(h->layout, slots[g]);
    return sum;
}

gsResult_t gsRecordInspect(const void *record, size_t bytes, gsRecordInfo_t *info)
{
    static const char *const layouts[] = {"global", "chunked", "mask"}, *const values[] = {"f32", "bf16", "shared"};
    gsRecordHeader h;
    gsRecordSegment segment;
    uint64_t slots[2];
    if (!record || !info)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "%s is NULL; expected %s", record ? "info" : "record",
                      record ? "a place for the findings" : "a record");
    if (bytes < GS_RECORD_SECTIONS)
        return gsFail(GS_ERROR_CORRUPT, "the record has %zu bytes; expected at least %d", bytes, GS_RECORD_SECTIONS);
    memcpy(&h, record, sizeof h);
    memcpy(&segment, (const uint8_t *)record + sizeof h, sizeof segment);
    uint32_t fault = gsHeaderFault(&h, &segment, bytes);
    if (!fault && gsRecordChecksum(record, &h) != h.checksum)
        fault = GS_FAULT_CHECKSUM;
    if (!fault)
        fault = gsRecordStructureFault(record, &h, &segment);
    if (fault)
        return corrupt(fault);
    gsRecordSlots(&h, &segment, slots);
    *info = (gsRecordInfo_t){.rank = h.rank,
                             .flags = h.flags,
                             .step = h.step,
                             .count = h.count,
                             .kept = h.kept,
                             .configHash = h.configHash,
                             .recordBytes = h.recordBytes,
                             .indexBytes = indexBytes(&h, slots),
                             .valueBytes = valueBytes(&h, slots),
                             .layout = layouts[h.layout],
                             .value = values[h.value]};
    return GS_SUCCESS;
}
