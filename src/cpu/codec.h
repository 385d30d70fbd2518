/* Values to codes and back, by slot (sparse records) and by block (layout "all"): the same functions for the sender and for every rank. */
#ifndef GS_CPU_CODEC_H
#define GS_CPU_CODEC_H

#include "draws.h"
#include "stages.h"

/* How the values of one group of one record are coded. */
typedef struct {
    uint32_t value, bits, levels;
    int stochastic;
    float scale; /* float16's; of all values, if `scales` is NULL */
} coding;

GS_INLINE coding codingOf(const gsSpec *spec, float scale)
{
    coding c = {spec->value, spec->value == GS_VALUE_LEVELS ? 8 : gsValueBits(spec->value, 0), spec->levels,
                spec->random, scale};
    if (spec->layout == GS_LAYOUT_ALL)
        c.bits = spec->aux & 0xffu;
    return c;
}

/* ---- one slot; c->value a constant where this is inlined ---- */

GS_INLINE void putSlot(const coding *c, uint32_t value, uint8_t *values, uint64_t slot, gsReal x, uint32_t word)
{
    void *at = values;
    switch (value) {
    case GS_VALUE_F64: ((double *)at)[slot] = (double)x; break;
    case GS_VALUE_BF16:
    case GS_VALUE_F16: ((uint16_t *)at)[slot] = gsHalfCode(value, x, c->scale, word, c->stochastic); break;
    case GS_VALUE_LEVELS: values[slot] = (uint8_t)gsLevelCode(x, c->scale, c->levels, c->bits, word); break;
    default: ((float *)at)[slot] = gsNarrow(x, word, c->stochastic); break;
    }
}

GS_INLINE gsReal getSlot(const coding *c, uint32_t value, const uint8_t *values, uint64_t slot)
{
    const void *at = values;
    switch (value) {
    case GS_VALUE_F64: return (gsReal)((const double *)at)[slot];
    case GS_VALUE_BF16:
    case GS_VALUE_F16: return (gsReal)gsHalfDecode(value, ((const uint16_t *)at)[slot], c->scale);
    case GS_VALUE_LEVELS: return (gsReal)gsLevelDecode(values[slot], c->scale, c->levels, c->bits);
    default: return (gsReal)((const float *)at)[slot];
    }
}

/* Runs the statement with V, the value coding of a slot, a constant. */
#define GS_FOR_SLOT_VALUE(value, statement) \
    do {                                    \
        switch (value) {                    \
        case GS_VALUE_F64: {                \
            enum { V = GS_VALUE_F64 };      \
            statement;                      \
        } break;                            \
        case GS_VALUE_BF16: {               \
            enum { V = GS_VALUE_BF16 };     \
            statement;                      \
        } break;                            \
        case GS_VALUE_F16: {                \
            enum { V = GS_VALUE_F16 };      \
            statement;                      \
        } break;                            \
        case GS_VALUE_LEVELS: {             \
            enum { V = GS_VALUE_LEVELS };   \
            statement;                      \
        } break;                            \
        default: {                          \
            enum { V = GS_VALUE_F32 };      \
            statement;                      \
        } break;                            \
        }                                   \
    } while (0)

/* ---- a block of all coordinates ---- */

GS_INLINE float scaleOfBlock(uint32_t value, const gsReal *a, uint32_t n)
{
    double lane[GS_LANES] = {0};
    gsReal largest = 0;
    switch (value) {
    case GS_VALUE_SIGN:
        for (uint32_t i = 0; i < n; i++)
            lane[i % GS_LANES] += (double)gsAbs(a[i]);
        return n ? gsSaturate((float)(foldLanes(lane) / (double)n)) : 0.0f;
    case GS_VALUE_TERNARY:
        for (uint32_t i = 0; i < n; i++)
            largest = gsAbs(a[i]) > largest ? gsAbs(a[i]) : largest;
        return gsScaleUp((double)largest);
    default: return gsScaleUp(sqrt(dotBlock(a, a, n)));
    }
}

GS_INLINE uint32_t codeOf(const coding *c, gsReal a, uint32_t word)
{
    switch (c->value) {
    case GS_VALUE_SIGN: return gsSignCode(a);
    case GS_VALUE_TERNARY: return gsTernaryCode(a, c->scale, word);
    case GS_VALUE_LEVELS: return gsLevelCode(a, c->scale, c->levels, c->bits, word);
    default: return gsNaturalCode(a, word);
    }
}

GS_INLINE float decodeOf(const coding *c, uint32_t code)
{
    switch (c->value) {
    case GS_VALUE_SIGN: return gsSignDecode(code, c->scale);
    case GS_VALUE_TERNARY: return gsTernaryDecode(code, c->scale);
    case GS_VALUE_LEVELS: return gsLevelDecode(code, c->scale, c->levels, c->bits);
    default: return gsNaturalDecode(code);
    }
}

/* Plain numbers have slots; other codes stand bit by bit, the first in the lowest bits. A block begins at a byte. */
GS_INLINE int hasSlots(uint32_t value)
{
    return value == GS_VALUE_F64 || value == GS_VALUE_F32 || value == GS_VALUE_BF16 || value == GS_VALUE_F16;
}

static inline void putBlock(const coding *c, uint8_t *values, uint64_t first, uint32_t n, const gsReal *a,
                            const uint32_t *words)
{
    uint8_t *at = values + first * c->bits / 8;
    uint64_t pending = 0;
    uint32_t held = 0;
    if (hasSlots(c->value)) {
        for (uint32_t i = 0; i < n; i++)
            GS_FOR_SLOT_VALUE(c->value, putSlot(c, V, values, first + i, a[i], words[i]));
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        pending |= (uint64_t)codeOf(c, a[i], words[i]) << held;
        for (held += c->bits; held >= 8; held -= 8, pending >>= 8)
            *at++ = (uint8_t)pending;
    }
    if (held)
        *at = (uint8_t)pending;
}

static inline void getBlock(const coding *c, const uint8_t *values, uint64_t first, uint32_t n, gsReal *out)
{
    const uint8_t *at = values + first * c->bits / 8;
    uint64_t pending = 0;
    uint32_t held = 0;
    if (hasSlots(c->value)) {
        for (uint32_t i = 0; i < n; i++)
            GS_FOR_SLOT_VALUE(c->value, out[i] = getSlot(c, V, values, first + i));
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        for (; held < c->bits; held += 8)
            pending |= (uint64_t)*at++ << held;
        out[i] = (gsReal)decodeOf(c, (uint32_t)pending & ((1u << c->bits) - 1u));
        pending >>= c->bits;
        held -= c->bits;
    }
}

#endif
