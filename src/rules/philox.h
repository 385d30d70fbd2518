/*
 * Philox4x32-10: the counter-based generator behind every random draw, the same numbers as cuRAND's on the device.
 * J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
 *
 * key = seed; counter = {i >> 2 as 64 bits, step, rank << 8 | purpose}; the draw of element i is word i & 3.
 */
#ifndef GS_RULES_PHILOX_H
#define GS_RULES_PHILOX_H

#include "numeric.h"

/* What a draw is for: draws of different purposes are independent. */
enum { GS_DRAW_KEEP = 1, GS_DRAW_ROUND = 2, GS_DRAW_THIN = 3, GS_DRAW_MASK = 4 };

typedef struct {
    uint32_t word[4];
} gsPhilox4;

#define GS_PHILOX_ROUNDS 10
#define GS_PHILOX_FACTOR0 0xD2511F53u
#define GS_PHILOX_FACTOR1 0xCD9E8D57u
#define GS_PHILOX_KEY0 0x9E3779B9u /* the key's steps from round to round: golden ratio, sqrt(3) - 1 */
#define GS_PHILOX_KEY1 0xBB67AE85u

GS_HD void gsPhiloxRound(uint32_t *c0, uint32_t *c1, uint32_t *c2, uint32_t *c3, uint32_t k0, uint32_t k1)
{
    uint64_t p0 = (uint64_t)GS_PHILOX_FACTOR0 * *c0, p1 = (uint64_t)GS_PHILOX_FACTOR1 * *c2;
    *c0 = (uint32_t)(p1 >> 32) ^ *c1 ^ k0;
    *c2 = (uint32_t)(p0 >> 32) ^ *c3 ^ k1;
    *c1 = (uint32_t)p1;
    *c3 = (uint32_t)p0;
}

/* Four draws: of the elements 4 * quad .. 4 * quad + 3. */
GS_HD gsPhilox4 gsPhilox(uint64_t seed, uint64_t quad, uint64_t step, uint32_t rank, uint32_t purpose)
{
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    gsPhilox4 c;
    int round;
    c.word[0] = (uint32_t)quad;
    c.word[1] = (uint32_t)(quad >> 32);
    c.word[2] = (uint32_t)step;
    c.word[3] = rank << 8 | purpose;
    for (round = 0; round < GS_PHILOX_ROUNDS; round++) {
        gsPhiloxRound(&c.word[0], &c.word[1], &c.word[2], &c.word[3], k0, k1);
        k0 += GS_PHILOX_KEY0;
        k1 += GS_PHILOX_KEY1;
    }
    return c;
}

/* The single draw of element i. Rare paths only: neighbours share a call of gsPhilox. */
GS_HD uint32_t gsDraw(uint64_t seed, uint64_t i, uint64_t step, uint32_t rank, uint32_t purpose)
{
    return gsPhilox(seed, i >> 2, step, rank, purpose).word[i & 3];
}

/* Whether an element of probability p travels: word < p 2^32, compared exactly: p 2^32 is exact, and in float32 its ceiling fits
 * 32 bits below 1, which spares the conversion of the word to double. */
GS_REAL_RULE int gsDrawKeeps(uint32_t word, gsReal p)
{
    if (sizeof p == 4)
        return p >= (gsReal)1 || word < (uint32_t)ceilf((p < (gsReal)1 ? (float)p : 0.0f) * 4294967296.0f);
    return p >= (gsReal)1 || (double)word < (double)p * 4294967296.0;
}

#endif
