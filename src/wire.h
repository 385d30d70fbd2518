/*
 * The record: what one rank says to all others in one step. Little endian; WIRE.md documents every byte.
 *
 *    0        4        6        8            12       14      15     16      24      32     40           48            56
 *    +--------+--------+--------+------------+--------+-------+------+-------+-------+------+------------+-------------+----------+
 *    | magic  |version | flags  |    rank    |segments|layout |value | step  | count | kept | configHash | recordBytes | checksum |
 *    +--------+--------+--------+------------+--------+-------+------+-------+-------+------+------------+-------------+----------+
 *    | segment table: 16 bytes a segment { u64 count, u32 aux, f32 scale }                                                  |
 *    +----------------------------------------------------------------------------------------------------------------------+
 *    | group 0: block table (global layout) | values | indices                                                              |
 *    | group 1: the same (value coding "shared" only)                                                                       |
 *    +----------------------------------------------------------------------------------------------------------------------+
 *
 * Every section begins at a multiple of 16. A group lists kept coordinates in index order, slot by slot:
 *   block table  u32[blocks + 1]: the first slot of each block of 4096 elements, and the number of slots
 *   values       f32 or bf16 by slot; group 1 of "shared": one bit by slot, set for negative, magnitude = segment's scale
 *   indices      12 bits by slot, the place inside the block; slot j occupies bits 12 j .. 12 j + 11
 * Layout "chunked" has no block table: block b begins at slot b k, k = aux. Layout "mask" has neither table nor indices.
 */
#ifndef GS_WIRE_H
#define GS_WIRE_H

#include "rules/numeric.h"

#define GS_RECORD_MAGIC 0x31525347u /* "GSR1" */
#define GS_RECORD_VERSION 1
#define GS_RECORD_ALIGN 16

enum { GS_LAYOUT_GLOBAL = 0, GS_LAYOUT_CHUNKED = 1, GS_LAYOUT_MASK = 2 };
enum { GS_VALUE_F32 = 0, GS_VALUE_BF16 = 1, GS_VALUE_SHARED = 2 };
enum {
    GS_FLAG_SKIP = 1,
    GS_FLAG_NONFINITE = 2,
    GS_FLAG_THINNED = 4,
    GS_FLAG_DENSE = 8,
    GS_FLAG_OVERFLOWED = 16,
    GS_FLAG_AVERAGE = 32,
    GS_FLAGS_KNOWN = 63
};

typedef struct {
    uint32_t magic;
    uint16_t version;
    uint16_t flags;
    uint32_t rank;
    uint16_t segments;
    uint8_t layout;
    uint8_t value;
    uint64_t step;
    uint64_t count;
    uint64_t kept; /* slots of all groups */
    uint64_t configHash;
    uint64_t recordBytes; /* a multiple of 16 */
    uint64_t checksum;    /* over all words but this one */
} gsRecordHeader;

typedef struct {
    uint64_t count;
    uint32_t aux; /* "shared": slots of group 0; "chunked": k; otherwise 0 */
    float scale;  /* "shared": the magnitude of group 1; otherwise 0 */
} gsRecordSegment;

#define GS_RECORD_CHECKSUM_WORD 7 /* the header's word that holds the checksum */
#define GS_RECORD_SECTIONS 80     /* one header, one segment */
#define GS_RECORD_MAX_KEPT 0xffffffffull

/* Where a group's sections begin, in bytes from the record's first. */
typedef struct {
    uint64_t table;
    uint64_t values;
    uint64_t indices;
} gsRecordGroup;

typedef struct {
    gsRecordGroup group[2];
    uint64_t bytes; /* of the record */
} gsRecordSections;

GS_HD uint64_t gsAlign16(uint64_t bytes)
{
    return (bytes + GS_RECORD_ALIGN - 1) / GS_RECORD_ALIGN * GS_RECORD_ALIGN;
}

GS_HD int gsRecordGroups(uint32_t value)
{
    return value == GS_VALUE_SHARED ? 2 : 1;
}

GS_HD uint64_t gsRecordValueBytes(uint32_t value, int group, uint64_t slots)
{
    if (value == GS_VALUE_SHARED && group == 1)
        return (slots + 7) / 8;
    return slots * (value == GS_VALUE_BF16 ? 2 : 4);
}

GS_HD uint64_t gsRecordTableBytes(uint32_t layout, uint32_t blocks)
{
    return layout == GS_LAYOUT_GLOBAL ? ((uint64_t)blocks + 1) * 4 : 0;
}

GS_HD uint64_t gsRecordIndexBytes(uint32_t layout, uint64_t slots)
{
    return layout == GS_LAYOUT_MASK ? 0 : (12 * slots + 7) / 8;
}

/* slots[g] kept coordinates in group g, over `blocks` blocks. */
GS_HD gsRecordSections gsRecordLayout(uint32_t layout, uint32_t value, uint32_t blocks, const uint64_t slots[2])
{
    gsRecordSections s;
    uint64_t at = GS_RECORD_SECTIONS;
    int g;
    for (g = 0; g < 2; g++) {
        s.group[g].table = at;
        if (g < gsRecordGroups(value))
            at += gsAlign16(gsRecordTableBytes(layout, blocks));
        s.group[g].values = at;
        if (g < gsRecordGroups(value))
            at += gsAlign16(gsRecordValueBytes(value, g, slots[g]));
        s.group[g].indices = at;
        if (g < gsRecordGroups(value))
            at += gsAlign16(gsRecordIndexBytes(layout, slots[g]));
    }
    s.bytes = at;
    return s;
}

/* The index in slot j. Reads two bytes, both inside the section. */
GS_HD uint32_t gsReadIndex12(const uint8_t *indices, uint64_t j)
{
    uint64_t at = j / 2 * 3 + (j & 1);
    uint32_t pair = (uint32_t)indices[at] | (uint32_t)indices[at + 1] << 8;
    return j & 1 ? pair >> 4 : pair & 0xfffu;
}

#endif
