/*
 * A vector by owners, a part each. Of `nranks` parts block b belongs to part b mod nranks, as its block b / nranks; of a half's, which are
 * slices of equal size, every part has its blocks one behind the other, and is a list of one tensor.
 */
#ifndef GS_RULES_PART_H
#define GS_RULES_PART_H

#include "spec.h"

GS_HD uint32_t gsPartBlocks(const gsSpec *s, uint32_t part)
{
    if (s->half)
        return s->blocks / s->nranks;
    return s->blocks > part ? (s->blocks - part - 1) / s->nranks + 1 : 0;
}

/* The vector's last block, which may be short, is the last of its part. */
GS_HD uint64_t gsPartCount(const gsSpec *s, uint32_t part)
{
    uint64_t whole = (uint64_t)gsPartBlocks(s, part) * GS_BLOCK;
    if (s->half)
        return s->count / s->nranks;
    return s->blocks && (s->blocks - 1) % s->nranks == part ? whole - ((uint64_t)s->blocks * GS_BLOCK - s->count)
                                                            : whole;
}

/* Blocks of all parts before this one. */
GS_HD uint64_t gsPartStart(const gsSpec *s, uint32_t part)
{
    uint64_t each = s->blocks / s->nranks, more = s->blocks % s->nranks;
    return part * each + (part < more ? part : more);
}

/* A part's record is one of a vector of its own, and no other part's. */
GS_HD uint64_t gsPartHash(const gsSpec *s, uint32_t part)
{
    return s->configHash ^ (part + 1) * 0x9E3779B97F4A7C15u;
}

/* What a part's record is packed by, and summed by its owner: the call's pipeline over the part's blocks. Of equal slices the list's
 * table says of each what it says of the first. */
GS_HD gsSpec gsPartSpec(const gsSpec *s, uint32_t part)
{
    gsSpec p = *s;
    p.count = gsPartCount(s, part);
    p.blocks = gsPartBlocks(s, part);
    p.first = s->half ? (uint32_t)gsPartStart(s, part) : part;
    p.stride = s->half ? 1 : s->nranks;
    p.tensors = s->half ? 1 : 0;
    p.places = s->half ? gsListPlaces(p.count) : 0;
    p.capacity = s->partCapacity;
    p.slotBytes = s->partSlot;
    p.configHash = gsPartHash(s, part);
    return p;
}

/* Where a part's block is in the vector. */
GS_HD uint64_t gsBlockAt(const gsSpec *s, uint64_t b)
{
    return s->first + b * s->stride;
}

/* Where ranks' records are of parts: whose record is about a block, and the block's place in it. */
GS_HD uint32_t gsBlockOwner(const gsSpec *s, uint64_t b)
{
    return (uint32_t)(s->half ? b / (s->blocks / s->parts) : b % s->parts);
}

GS_HD uint64_t gsBlockInRecord(const gsSpec *s, uint64_t b)
{
    if (!s->parts)
        return b;
    return s->half ? b % (s->blocks / s->parts) : b / s->parts;
}

/* Elements of the vector that rank q's record is about. */
GS_HD uint64_t gsRecordCount(const gsSpec *s, uint32_t rank)
{
    return s->parts ? gsPartCount(s, rank) : s->count;
}

#endif
