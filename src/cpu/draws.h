/*
 * The draws of a whole block: gsPhilox for its 1024 quads. With AVX2 eight quads run side by side; the compiler does not find
 * this by itself (it splits the 64-bit products, 4 ns an element against under 1), hence the intrinsics.
 */
#ifndef GS_CPU_DRAWS_H
#define GS_CPU_DRAWS_H

#include "stages.h"

#ifdef __AVX2__
#include <immintrin.h>

/* Low and high halves of eight 32-bit products. */
GS_INLINE void multiply(__m256i c, __m256i factor, __m256i *low, __m256i *high)
{
    __m256i even = _mm256_mul_epu32(c, factor), odd = _mm256_mul_epu32(_mm256_srli_epi64(c, 32), factor);
    *low = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
    *high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
}

/* Eight quads by word -> by quad. */
GS_INLINE void storeQuads(const __m256i c[4], uint32_t *words)
{
    __m256i a = _mm256_unpacklo_epi32(c[0], c[1]), b = _mm256_unpackhi_epi32(c[0], c[1]);
    __m256i d = _mm256_unpacklo_epi32(c[2], c[3]), e = _mm256_unpackhi_epi32(c[2], c[3]);
    __m256i q04 = _mm256_unpacklo_epi64(a, d), q15 = _mm256_unpackhi_epi64(a, d);
    __m256i q26 = _mm256_unpacklo_epi64(b, e), q37 = _mm256_unpackhi_epi64(b, e);
    _mm256_storeu_si256((__m256i *)words, _mm256_permute2x128_si256(q04, q15, 0x20));
    _mm256_storeu_si256((__m256i *)(words + 8), _mm256_permute2x128_si256(q26, q37, 0x20));
    _mm256_storeu_si256((__m256i *)(words + 16), _mm256_permute2x128_si256(q04, q15, 0x31));
    _mm256_storeu_si256((__m256i *)(words + 24), _mm256_permute2x128_si256(q26, q37, 0x31));
}

/* quad is a multiple of 8, so that its low word does not wrap among the eight. */
GS_INLINE void drawEight(uint64_t seed, uint64_t quad, uint64_t step, uint32_t last, uint32_t *words)
{
    const __m256i factor0 = _mm256_set1_epi32((int)GS_PHILOX_FACTOR0),
                  factor1 = _mm256_set1_epi32((int)GS_PHILOX_FACTOR1);
    __m256i c[4] = {_mm256_add_epi32(_mm256_set1_epi32((int)quad), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)),
                    _mm256_set1_epi32((int)(quad >> 32)), _mm256_set1_epi32((int)step), _mm256_set1_epi32((int)last)};
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < GS_PHILOX_ROUNDS; round++) {
        __m256i low0, high0, low1, high1;
        multiply(c[0], factor0, &low0, &high0);
        multiply(c[2], factor1, &low1, &high1);
        c[0] = _mm256_xor_si256(_mm256_xor_si256(high1, c[1]), _mm256_set1_epi32((int)k0));
        c[2] = _mm256_xor_si256(_mm256_xor_si256(high0, c[3]), _mm256_set1_epi32((int)k1));
        c[1] = low1;
        c[3] = low0;
        k0 += GS_PHILOX_KEY0;
        k1 += GS_PHILOX_KEY1;
    }
    storeQuads(c, words);
}
#else
GS_INLINE void drawEight(uint64_t seed, uint64_t quad, uint64_t step, uint32_t last, uint32_t *words)
{
    for (uint32_t q = 0; q < 8; q++) {
        gsPhilox4 p = gsPhilox(seed, quad + q, step, last >> 8, last & 0xffu);
        memcpy(words + 4 * q, p.word, sizeof p.word);
    }
}
#endif

/* words[i] = the draw of element 4 quad + i, for a block; quad is a multiple of 1024. */
GS_INLINE void drawBlock(uint64_t seed, uint64_t quad, uint64_t step, uint32_t rank, uint32_t purpose, uint32_t *words)
{
    for (uint32_t q = 0; q < GS_BLOCK / 4; q += 8)
        drawEight(seed, quad + q, step, rank << 8 | purpose, words + 4 * q);
}

#endif
