/*
 * Systematic sampling: of n kept coordinates exactly m = capacity stay, each with probability m/n, and values are multiplied by
 * n/m. Coordinate j stays iff floor((j+1) m/n + u) > floor(j m/n + u), with one u in [0, 1) for all. (A u added to j instead would
 * move the comb by less than a tooth, and some coordinates would never stay.)
 */
#ifndef GS_RULES_THIN_H
#define GS_RULES_THIN_H

#include "philox.h"

typedef struct {
    uint64_t kept;  /* n < 2^32 */
    uint64_t sent;  /* m <= n */
    uint64_t shift; /* floor(u n), with u = word / 2^32 */
    float gain;     /* fl(n/m) */
    uint32_t unused;
} gsThinning;

GS_HD gsThinning gsThinningOf(uint64_t kept, uint64_t sent, uint32_t word)
{
    gsThinning t;
    t.kept = kept;
    t.sent = sent;
    t.shift = ((uint64_t)word * kept) >> 32;
    t.gain = sent > 0 && sent < kept ? (float)((double)kept / (double)sent) : 1.0f;
    t.unused = 0;
    return t;
}

/* How many of the first j kept coordinates stay, which is also the slot of coordinate j if it stays: floor(j m/n + u).
 * As j m is integral, that is floor((j m + floor(u n))/n): no more than 64 bits are needed. */
GS_HD uint64_t gsThinnedSlot(gsThinning t, uint64_t j)
{
    return t.sent == t.kept ? j : (j * t.sent + t.shift) / t.kept;
}

#endif
