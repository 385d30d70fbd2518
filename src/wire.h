/*
 * The record: what one rank says to all others in one step. Little endian; WIRE.md documents every byte.
 *
 *    0        4        6        8            12       14      15     16      24      32     40           48            56
 *    +--------+--------+--------+------------+--------+-------+------+-------+-------+------+------------+-------------+----------+
 *    | magic  |version | flags  |    rank    |segments|layout |value | step  | count | kept | configHash | recordBytes | checksum |
 *    +--------+--------+--------+------------+--------+-------+------+-------+-------+------+------------+-------------+----------+
 *    | segment table: 16 bytes a segment { u64 count, u32 aux, f32 scale }: all elements; of a list each tensor behind it   |
 *    +----------------------------------------------------------------------------------------------------------------------+
 *    | coefficients (flag "references"): f64[8], by reference of the pool                                                   |
 *    | whole tensors of a list: values of all their elements, of fixed width                                                |
 *    | group 0: block table (global layout) | scales (scaled codings) | values | indices                                    |
 *    | group 1: the same (value coding "shared" only), or a ternary map of all coordinates (flag "map")                     |
 *    +----------------------------------------------------------------------------------------------------------------------+
 *
 * Every section begins at a multiple of 16. A group lists kept coordinates in index order, slot by slot:
 *   block table  u32[blocks + 1]: the first slot of each block of 4096 elements, and the number of slots
 *   scales       f32[blocks]; of the 2-bit codebook f32[blocks][4], what each code means in a block
 *   values       by slot, a code of fixed width each; group 1 of "shared": one bit, set for negative, magnitude = segment's scale
 *   indices      12 bits by slot, the place inside the block; slot j occupies bits 12 j .. 12 j + 11
 * Layout "chunked" has no block table: block b begins at slot b k, k = aux. Layout "mask" has neither table nor indices. Layout
 * "all" has neither, and a slot for every coordinate. Layout "rows" has, for indices, a bit for each row of aux elements: all of
 * a row travels or nothing of it. A record that says "skip" ends behind its segment table. Every tensor of a list
 * begins a block; a whole tensor's blocks have no slots, indices or codes, and where the others' places are fixed they have none.
 */
#ifndef GS_WIRE_H
#define GS_WIRE_H

#include "rules/numeric.h"
#include "rules/topk.h"

#define GS_RECORD_MAGIC 0x31525347u /* "GSR1" */
#define GS_RECORD_VERSION 1
#define GS_RECORD_ALIGN 16

enum {
    GS_LAYOUT_GLOBAL = 0,
    GS_LAYOUT_CHUNKED = 1,
    GS_LAYOUT_MASK = 2,
    GS_LAYOUT_ALL = 3,
    GS_LAYOUT_ROWS = 4,
    GS_LAYOUTS
};
enum {
    GS_VALUE_F32 = 0,
    GS_VALUE_BF16 = 1,
    GS_VALUE_SHARED = 2,
    GS_VALUE_F64 = 3,
    GS_VALUE_F16 = 4,
    GS_VALUE_SIGN = 5,
    GS_VALUE_TERNARY = 6,
    GS_VALUE_LEVELS = 7,
    GS_VALUE_NATURAL = 8,
    GS_VALUE_GRID = 9,
    GS_VALUE_BOOK = 10,
    GS_VALUES
};
enum {
    GS_FLAG_SKIP = 1,
    GS_FLAG_NONFINITE = 2,
    GS_FLAG_THINNED = 4,
    GS_FLAG_DENSE = 8,
    GS_FLAG_OVERFLOWED = 16,
    GS_FLAG_AVERAGE = 32,
    GS_FLAG_REFERENCES = 64,
    GS_FLAG_MAP = 128,
    GS_FLAG_FAULT = 256,
    GS_FLAGS_KNOWN = 511
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
    uint32_t
        aux; /* "shared": slots of group 0; "chunked": k; "rows": elements of a row; "all": bits of a code, + 256 where one
                scale serves all */
    float
        scale; /* "shared": the magnitude of group 1; f16: what values are multiplied by; "all" with one scale: that */
} gsRecordSegment; /* of a list's tensor aux is 0, or GS_RECORD_WHOLE + its values' coding; scale is 0 */

#define GS_RECORD_CHECKSUM_WORD 7 /* the header's word that holds the checksum */
#define GS_RECORD_SECTIONS 80     /* one header, one segment; a list's tensors follow */
#define GS_RECORD_MAX_KEPT 0xffffffffull
#define GS_RECORD_ONE_SCALE 256u
#define GS_RECORD_WHOLE 256u
#define GS_RECORD_MAX_TENSORS 65534 /* the header counts segments in 16 bits */
#define GS_LIST_ALIGN \
    128               /* where every coordinate has a code, each of a list's tensors takes a multiple: whole 16 bytes */
#define GS_BOOK 4     /* codes of the 2-bit codebook */
#define GS_MAX_POOL 8 /* references of a pool, and coefficients of a record */

/* How a record's elements lie, by its segment table or by a reducer's configuration. */
typedef struct {
    uint64_t chosen; /* elements that are selected from */
    uint64_t whole;  /* elements of whole tensors */
    uint64_t places; /* codes where every chosen coordinate has one */
    uint64_t fixed;  /* slots of layout "chunked" */
    uint32_t blocks;
    uint32_t tensors; /* of a list; 0: one gradient */
    uint32_t wholeValue;
} gsRecordExtent;

/* What decides where a record's sections are. */
typedef struct {
    gsRecordExtent of;
    uint64_t slots[2];
    uint32_t layout;
    uint32_t value;
    uint32_t aux; /* as the segment's; of layouts "all" and "rows" alone */
    uint32_t flags;
} gsRecordShape;

/* Where a group's sections begin, in bytes from the record's first. Sections that are not there have no bytes. */
typedef struct {
    uint64_t table;
    uint64_t scales;
    uint64_t values;
    uint64_t indices;
} gsRecordGroup;

typedef struct {
    uint64_t whole; /* values of whole tensors */
    gsRecordGroup group[2];
    uint64_t bytes; /* of the record */
} gsRecordSections;

GS_HD uint64_t gsAlign16(uint64_t bytes)
{
    return (bytes + GS_RECORD_ALIGN - 1) / GS_RECORD_ALIGN * GS_RECORD_ALIGN;
}

/* Places that a list's tensor of n elements takes where every coordinate has a code. */
GS_HD uint64_t gsListPlaces(uint64_t n)
{
    return (n + GS_LIST_ALIGN - 1) / GS_LIST_ALIGN * GS_LIST_ALIGN;
}

GS_HD int gsRecordGroups(uint32_t value)
{
    return value == GS_VALUE_SHARED ? 2 : 1;
}

/* Codings whose code means nothing without a scale. */
GS_HD int gsValueIsScaled(uint32_t value)
{
    return value == GS_VALUE_SIGN || value == GS_VALUE_TERNARY || value == GS_VALUE_LEVELS || value == GS_VALUE_GRID ||
           value == GS_VALUE_BOOK;
}

/* Bits of a level's code: the sign and enough for 0..levels. */
GS_HD uint32_t gsLevelBits(uint32_t levels)
{
    uint32_t bits = 1;
    while (levels >> bits)
        bits++;
    return bits + 1;
}

/* Bits of a code where all coordinates have one. */
GS_HD uint32_t gsValueBits(uint32_t value, uint32_t levels)
{
    switch (value) {
    case GS_VALUE_F64: return 64;
    case GS_VALUE_BF16:
    case GS_VALUE_F16: return 16;
    case GS_VALUE_SIGN: return 1;
    case GS_VALUE_TERNARY: return 2;
    case GS_VALUE_LEVELS: return gsLevelBits(levels);
    case GS_VALUE_GRID: return gsLevelBits(levels) - 1;
    case GS_VALUE_BOOK: return 2;
    case GS_VALUE_NATURAL: return 9;
    default: return 32;
    }
}

/* Bits of a slot's code. Sparse records give a level a byte. */
GS_HD uint32_t gsRecordCodeBits(const gsRecordShape *s, int group)
{
    if (s->layout == GS_LAYOUT_ALL)
        return s->aux & 0xffu;
    if (group == 1)
        return 1;
    return s->value == GS_VALUE_LEVELS ? 8 : gsValueBits(s->value, 0);
}

/* Whether a table says where a block's slots begin. */
GS_HD int gsLayoutHasTable(uint32_t layout)
{
    return layout == GS_LAYOUT_GLOBAL || layout == GS_LAYOUT_ROWS;
}

/* Whether every slot has an index. */
GS_HD int gsLayoutHasIndices(uint32_t layout)
{
    return layout == GS_LAYOUT_GLOBAL || layout == GS_LAYOUT_CHUNKED;
}

GS_HD uint64_t gsRecordTableBytes(const gsRecordShape *s)
{
    return gsLayoutHasTable(s->layout) ? ((uint64_t)s->of.blocks + 1) * 4 : 0;
}

GS_HD uint64_t gsRecordScaleBytes(const gsRecordShape *s)
{
    int one = s->layout == GS_LAYOUT_ALL && (s->aux & GS_RECORD_ONE_SCALE);
    if (!gsValueIsScaled(s->value) || one)
        return 0;
    return (uint64_t)s->of.blocks * 4 * (s->value == GS_VALUE_BOOK ? GS_BOOK : 1);
}

GS_HD uint64_t gsRecordValueBytes(const gsRecordShape *s, int group)
{
    uint64_t slots = s->layout == GS_LAYOUT_ALL && s->slots[group] ? s->of.places : s->slots[group];
    return (slots * gsRecordCodeBits(s, group) + 7) / 8;
}

/* Rows of `width` elements, the last one as short as it may be. */
GS_HD uint64_t gsRecordRows(uint64_t count, uint32_t width)
{
    return count / width + (count % width != 0);
}

GS_HD uint64_t gsRecordIndexBytes(const gsRecordShape *s, int group)
{
    if (s->layout == GS_LAYOUT_ROWS)
        return (gsRecordRows(s->of.chosen, s->aux) + 7) / 8;
    return gsLayoutHasIndices(s->layout) ? (12 * s->slots[group] + 7) / 8 : 0;
}

/* Two bits a coordinate: 0 none, 1 plus, 2 minus. */
GS_HD uint64_t gsRecordMapBytes(const gsRecordShape *s)
{
    return (2 * s->of.places + 7) / 8;
}

GS_HD uint64_t gsRecordWholeBytes(const gsRecordShape *s)
{
    int there = s->of.whole && !(s->flags & (GS_FLAG_SKIP | GS_FLAG_NONFINITE));
    return there ? s->of.whole * (gsValueBits(s->of.wholeValue, 0) / 8) : 0;
}

/* Where the coefficients are, if there are any: behind the segment table. */
GS_HD uint64_t gsRecordTableEnd(uint32_t tensors)
{
    return GS_RECORD_SECTIONS + (uint64_t)tensors * sizeof(gsRecordSegment);
}

GS_HD gsRecordSections gsRecordLayout(const gsRecordShape *s)
{
    gsRecordSections out;
    uint64_t at = gsRecordTableEnd(s->of.tensors);
    int g, groups = s->flags & GS_FLAG_SKIP ? 0 : gsRecordGroups(s->value);
    if (groups && s->flags & GS_FLAG_REFERENCES)
        at += GS_MAX_POOL * sizeof(double);
    out.whole = at;
    at += gsAlign16(gsRecordWholeBytes(s));
    for (g = 0; g < 2; g++) {
        int map = g == 1 && (s->flags & GS_FLAG_MAP), there = g < groups;
        out.group[g].table = at;
        at += there && !map ? gsAlign16(gsRecordTableBytes(s)) : 0;
        out.group[g].scales = at;
        at += there && !map ? gsAlign16(gsRecordScaleBytes(s)) : 0;
        out.group[g].values = at;
        at += !there ? 0 : gsAlign16(map ? gsRecordMapBytes(s) : gsRecordValueBytes(s, g));
        out.group[g].indices = at;
        at += there && !map ? gsAlign16(gsRecordIndexBytes(s, g)) : 0;
    }
    out.bytes = at;
    return out;
}

/* One gradient, not a list; k: of layout "chunked". */
GS_HD gsRecordExtent gsPlainExtent(uint64_t count, uint32_t k)
{
    gsRecordExtent e;
    e.chosen = e.places = count;
    e.whole = 0;
    e.fixed = gsTopkTotal(k, count);
    e.blocks = (uint32_t)(count / GS_BLOCK + (count % GS_BLOCK != 0));
    e.tensors = e.wholeValue = 0;
    return e;
}

/* How many slots a record has in each group, and all else that places its sections. */
GS_HD gsRecordShape gsRecordShapeOf(const gsRecordHeader *h, const gsRecordSegment *segment,
                                    const gsRecordExtent *extent)
{
    gsRecordShape s;
    s.of = *extent;
    s.slots[0] = h->value == GS_VALUE_SHARED && segment->aux < h->kept ? segment->aux : h->kept;
    s.slots[1] = h->kept - s.slots[0];
    s.layout = h->layout;
    s.value = h->value;
    s.aux = segment->aux;
    s.flags = h->flags;
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
