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

/* Values that a decoder would not survive or not agree on: what is not finite, levels and digits out of range. */
static int scalesValid(const uint8_t *scales, uint64_t n, int anySign)
{
    for (uint64_t i = 0; i < n; i++) {
        float scale;
        memcpy(&scale, scales + 4 * i, 4);
        if (!gsIsFinite(scale) || (scale < 0.0f && !anySign))
            return 0;
    }
    return 1;
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

/* Slots that the rows have among n elements from `first` on. */
static uint32_t slotsOfRows(const uint8_t *rows, uint32_t width, uint64_t first, uint32_t n)
{
    uint32_t slots = 0, end;
    uint64_t row = first / width;
    for (uint32_t at = 0; at < n; at = end, row++) {
        end = gsRowEnd(row, width, first, n);
        slots += gsRowTravels(rows, row) ? end - at : 0;
    }
    return slots;
}

/* No bit stands behind the last row's. */
static int rowsEndValid(const uint8_t *rows, uint64_t n)
{
    return n % 8 == 0 || rows[n / 8] >> n % 8 == 0;
}

/* Of a block that has slots up to `end`: that they are for coordinates of the block, each once. */
static int coordinatesValid(const uint8_t *section, const gsRecordHeader *h, const gsRecordSegment *segment, uint64_t b,
                            uint64_t slot, uint64_t end, uint32_t length)
{
    if (h->layout == GS_LAYOUT_ROWS)
        return slotsOfRows(section, segment->aux, b * GS_BLOCK, length) == end - slot;
    return indicesValid(section, slot, end, length);
}

static uint32_t groupFault(const uint8_t *record, const gsRecordHeader *h, const gsRecordSegment *segment,
                           const gsRecordGroup *at, uint64_t slots)
{
    uint64_t blocks = (h->count + GS_BLOCK - 1) / GS_BLOCK, slot = 0;
    if (gsLayoutHasTable(h->layout) && readTable(record + at->table, 0) != 0)
        return GS_FAULT_TABLE;
    if (h->layout == GS_LAYOUT_ROWS && !rowsEndValid(record + at->indices, gsRecordRows(h->count, segment->aux)))
        return GS_FAULT_INDEX;
    for (uint64_t b = 0; b < blocks; b++) {
        uint64_t left = h->count - b * GS_BLOCK;
        uint32_t length = left < GS_BLOCK ? (uint32_t)left : GS_BLOCK;
        uint64_t end = gsLayoutHasTable(h->layout) ? readTable(record + at->table, b + 1)
                                                   : slot + gsTopkKept(segment->aux, length);
        if (end < slot || end > slots || end - slot > length)
            return GS_FAULT_TABLE;
        if (!coordinatesValid(record + at->indices, h, segment, b, slot, end, length))
            return GS_FAULT_INDEX;
        slot = end;
    }
    return slot == slots ? GS_FAULT_NONE : GS_FAULT_TABLE;
}

static int coefficientsValid(const uint8_t *record)
{
    double c[GS_MAX_POOL];
    memcpy(c, record + GS_RECORD_SECTIONS, sizeof c);
    for (int p = 0; p < GS_MAX_POOL; p++)
        if (!(c[p] - c[p] == 0.0))
            return 0;
    return 1;
}

uint32_t gsRecordStructureFault(const uint8_t *record, const gsRecordHeader *h, const gsRecordSegment *segment)
{
    gsRecordShape shape = gsRecordShapeOf(h, segment);
    gsRecordSections s = gsRecordLayout(&shape);
    if (h->flags & GS_FLAG_SKIP)
        return GS_FAULT_NONE;
    if (h->flags & GS_FLAG_REFERENCES && !coefficientsValid(record))
        return GS_FAULT_VALUE;
    if (!scalesValid(record + s.group[0].scales, gsRecordScaleBytes(&shape) / 4, h->value == GS_VALUE_BOOK))
        return GS_FAULT_VALUE;
    if (h->layout == GS_LAYOUT_MASK || h->layout == GS_LAYOUT_ALL ||
        (h->layout == GS_LAYOUT_CHUNKED && h->flags & GS_FLAG_NONFINITE))
        return GS_FAULT_NONE; /* no indices */
    for (int g = 0; g < gsRecordGroups(h->value); g++) {
        if (g == 1 && h->flags & GS_FLAG_MAP)
            continue;
        uint32_t fault = groupFault(record, h, segment, &s.group[g], shape.slots[g]);
        if (fault)
            return fault;
    }
    return GS_FAULT_NONE;
}

static gsResult_t corrupt(uint32_t fault)
{
    return gsFail(GS_ERROR_CORRUPT, "the record %s", gsFaultText(fault));
}

static void measureSections(const gsRecordShape *s, gsRecordInfo_t *info)
{
    int groups = s->flags & GS_FLAG_SKIP ? 0 : gsRecordGroups(s->value);
    for (int g = 0; g < groups; g++) {
        int map = g == 1 && s->flags & GS_FLAG_MAP;
        info->valueBytes += map ? gsRecordMapBytes(s->count) : gsRecordValueBytes(s, g) + gsRecordScaleBytes(s);
        info->indexBytes +=
            map ? 0 : gsRecordTableBytes(s) + gsRecordIndexBytes(s, g); /* what tells where values belong */
    }
}

gsResult_t gsRecordInspect(const void *record, size_t bytes, gsRecordInfo_t *info)
{
    static const char *const layouts[] = {"global", "chunked", "mask", "all", "rows"};
    static const char *const values[] = {"f32",     "bf16",   "shared",  "f64",  "f16", "sign",
                                         "ternary", "levels", "natural", "grid", "2bit"};
    gsRecordHeader h;
    gsRecordSegment segment;
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
    *info = (gsRecordInfo_t){.rank = h.rank,
                             .flags = h.flags,
                             .step = h.step,
                             .count = h.count,
                             .kept = h.kept,
                             .configHash = h.configHash,
                             .recordBytes = h.recordBytes,
                             .layout = layouts[h.layout],
                             .value = values[h.value]};
    gsRecordShape shape = gsRecordShapeOf(&h, &segment);
    measureSections(&shape, info);
    return GS_SUCCESS;
}
