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

/* ---- a list's tensors, by the segment table ---- */

static gsRecordSegment entryOf(const uint8_t *record, uint32_t tensor)
{
    gsRecordSegment entry;
    memcpy(&entry, record + gsRecordTableEnd(tensor), sizeof entry);
    return entry;
}

/* How a tensor may say that it travels whole. */
static int isWholeCoding(uint32_t aux)
{
    return aux == GS_RECORD_WHOLE + GS_VALUE_F64 || aux == GS_RECORD_WHOLE + GS_VALUE_F32 ||
           aux == GS_RECORD_WHOLE + GS_VALUE_BF16 || aux == GS_RECORD_WHOLE + GS_VALUE_F16;
}

static int addTensor(const gsRecordSegment *entry, uint32_t k, gsRecordExtent *e)
{
    uint64_t last = entry->count % GS_BLOCK, blocks = entry->count / GS_BLOCK + (last != 0);
    if (gsBits(entry->scale) != 0 || blocks > 0xfffffffeu - e->blocks)
        return 0;
    e->blocks += (uint32_t)blocks;
    e->tensors++;
    if (entry->aux == 0) {
        e->chosen += entry->count;
        e->places += gsListPlaces(entry->count);
        e->fixed += gsTopkTotal(k, entry->count);
        return 1;
    }
    if (!isWholeCoding(entry->aux) || (e->whole && entry->aux != GS_RECORD_WHOLE + e->wholeValue))
        return 0;
    e->wholeValue = entry->aux - GS_RECORD_WHOLE;
    e->whole += entry->count;
    return 1;
}

/* `bytes` may be read. */
static uint32_t readExtent(const uint8_t *record, uint64_t bytes, const gsRecordHeader *h,
                           const gsRecordSegment *segment, gsRecordExtent *e)
{
    uint32_t tensors = h->segments ? h->segments - 1u : 0;
    if (tensors == 0) {
        *e = gsPlainExtent(h->count, segment->aux);
        return GS_FAULT_NONE;
    }
    memset(e, 0, sizeof *e);
    if (gsRecordTableEnd(tensors) > bytes)
        return GS_FAULT_LENGTH;
    for (uint32_t t = 0; t < tensors; t++) {
        gsRecordSegment entry = entryOf(record, t);
        if (entry.count > h->count - e->chosen - e->whole || !addTensor(&entry, segment->aux, e))
            return GS_FAULT_LAYOUT;
    }
    return e->chosen + e->whole == h->count ? GS_FAULT_NONE : GS_FAULT_LAYOUT;
}

/* A walk over the blocks of a record, of one gradient or a list. */
typedef struct {
    uint64_t left; /* elements of the tensor that are still to come */
    uint32_t tensor;
    int whole;
} walk;

static walk beginWalk(const gsRecordHeader *h, const gsRecordExtent *extent)
{
    return (walk){.left = extent->tensors ? 0 : h->count};
}

/* Elements of the next block, of which there must be one, that are selected from. */
static uint32_t nextBlock(walk *w, const uint8_t *record)
{
    while (w->left == 0) {
        gsRecordSegment entry = entryOf(record, w->tensor++);
        w->left = entry.count;
        w->whole = entry.aux != 0;
    }
    uint32_t length = w->left < GS_BLOCK ? (uint32_t)w->left : GS_BLOCK;
    w->left -= length;
    return w->whole ? 0 : length;
}

/* ---- sections ---- */

static uint32_t groupFault(const uint8_t *record, const gsRecordHeader *h, const gsRecordSegment *segment,
                           const gsRecordExtent *extent, const gsRecordGroup *at, uint64_t slots)
{
    uint64_t slot = 0;
    walk w = beginWalk(h, extent);
    if (gsLayoutHasTable(h->layout) && readTable(record + at->table, 0) != 0)
        return GS_FAULT_TABLE;
    if (h->layout == GS_LAYOUT_ROWS && !rowsEndValid(record + at->indices, gsRecordRows(h->count, segment->aux)))
        return GS_FAULT_INDEX;
    for (uint64_t b = 0; b < extent->blocks; b++) {
        uint32_t length = nextBlock(&w, record);
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

static int coefficientsValid(const uint8_t *record, const gsRecordExtent *extent)
{
    double c[GS_MAX_POOL];
    memcpy(c, record + gsRecordTableEnd(extent->tensors), sizeof c);
    for (int p = 0; p < GS_MAX_POOL; p++)
        if (!(c[p] - c[p] == 0.0))
            return 0;
    return 1;
}

uint32_t gsRecordStructureFault(const uint8_t *record, const gsRecordHeader *h, const gsRecordSegment *segment,
                                const gsRecordExtent *extent)
{
    gsRecordShape shape = gsRecordShapeOf(h, segment, extent);
    gsRecordSections s = gsRecordLayout(&shape);
    if (h->flags & GS_FLAG_SKIP)
        return GS_FAULT_NONE;
    if (h->flags & GS_FLAG_REFERENCES && !coefficientsValid(record, extent))
        return GS_FAULT_VALUE;
    if (!scalesValid(record + s.group[0].scales, gsRecordScaleBytes(&shape) / 4, h->value == GS_VALUE_BOOK))
        return GS_FAULT_VALUE;
    if (h->layout == GS_LAYOUT_MASK || h->layout == GS_LAYOUT_ALL ||
        (h->layout == GS_LAYOUT_CHUNKED && h->flags & GS_FLAG_NONFINITE))
        return GS_FAULT_NONE; /* no indices */
    for (int g = 0; g < gsRecordGroups(h->value); g++) {
        if (g == 1 && h->flags & GS_FLAG_MAP)
            continue;
        uint32_t fault = groupFault(record, h, segment, extent, &s.group[g], shape.slots[g]);
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
    info->valueBytes = gsRecordWholeBytes(s);
    for (int g = 0; g < groups; g++) {
        int map = g == 1 && s->flags & GS_FLAG_MAP;
        info->valueBytes += map ? gsRecordMapBytes(s) : gsRecordValueBytes(s, g) + gsRecordScaleBytes(s);
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
    gsRecordExtent extent;
    uint32_t fault = h.magic != GS_RECORD_MAGIC ? GS_FAULT_MAGIC : readExtent(record, bytes, &h, &segment, &extent);
    if (!fault)
        fault = gsHeaderFault(&h, &segment, &extent, bytes);
    if (!fault && gsRecordChecksum(record, &h) != h.checksum)
        fault = GS_FAULT_CHECKSUM;
    if (!fault)
        fault = gsRecordStructureFault(record, &h, &segment, &extent);
    if (fault)
        return corrupt(fault);
    *info = (gsRecordInfo_t){.rank = h.rank,
                             .flags = h.flags,
                             .step = h.step,
                             .count = h.count,
                             .kept = h.kept,
                             .tensors = extent.tensors,
                             .whole = extent.whole,
                             .configHash = h.configHash,
                             .recordBytes = h.recordBytes,
                             .layout = layouts[h.layout],
                             .value = values[h.value]};
    gsRecordShape shape = gsRecordShapeOf(&h, &segment, &extent);
    measureSections(&shape, info);
    return GS_SUCCESS;
}
