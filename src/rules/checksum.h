/*
 * The checksum of a record: a sum over its 64-bit words, in any order, of one 32 x 32 -> 64 product each. With x = w ^ (K + j odd)
 * for word j, the term is lo32(x) hi32(x) + w mod 2^64: the product makes it see exchanged words, the plain w makes every
 * single changed bit count even where the other half of x is 0. It guards against accidents, not against forgers.
 */
#ifndef GS_RULES_CHECKSUM_H
#define GS_RULES_CHECKSUM_H

#include "numeric.h"

#define GS_CHECKSUM_ODD 0x9E3779B97F4A7C15ull /* 2^64 / golden ratio, odd: consecutive j differ in both halves */

GS_HD uint64_t gsChecksumKey(uint64_t configHash, uint64_t step, uint32_t rank)
{
    return configHash ^ (step * 0xD1342543DE82EF95ull) ^ ((uint64_t)rank << 32 | 0x67736563u);
}

GS_HD uint64_t gsChecksumTerm(uint64_t key, uint64_t j, uint64_t w)
{
    uint64_t x = w ^ (key + j * GS_CHECKSUM_ODD);
    return (x & 0xffffffffu) * (x >> 32) + w;
}

#endif
