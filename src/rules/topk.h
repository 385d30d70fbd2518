/*
 * chunk-topk: with feedback a = g + e, exactly k of every block of 4096 travel: the largest |a|, ties to the lower index,
 * zeros where fewer than k are left. The last block, of `length`, keeps ceil(k length / 4096).
 */
#ifndef GS_RULES_TOPK_H
#define GS_RULES_TOPK_H

#include "numeric.h"

GS_HD uint32_t gsTopkKept(uint32_t k, uint32_t length)
{
    return (k * length + GS_BLOCK - 1) / GS_BLOCK;
}

/* Exactly this many of all blocks. */
GS_HD uint64_t gsTopkTotal(uint32_t k, uint64_t count)
{
    return count / GS_BLOCK * k + gsTopkKept(k, (uint32_t)(count % GS_BLOCK));
}

#endif
