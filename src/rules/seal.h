/* Seals: what a slice of a result says of the call that made it. A fault or a NaN in one slice is everybody's. */
#ifndef GS_RULES_SEAL_H
#define GS_RULES_SEAL_H

#include "call.h"

typedef struct {
    uint32_t verdict;     /* GS_FAULT_ */
    uint32_t verdictRank; /* whose record it is */
    uint32_t nonFinite;
    uint32_t call; /* which call it is of: gsSealCall */
} gsSeal;

#define GS_SEALS 2 /* a slot ends with one for each half of a two-way reducer */

/* Never 0, which stands where nothing has come yet. */
GS_HD uint32_t gsSealCall(const gsState *state, uint32_t average)
{
    return 2 * ((uint32_t)state->step + 1) + average;
}

/* What this rank's call has found; a fault that has not been told yet counts. ranks: by place in the records. */
GS_HD gsSeal gsSealOf(const gsState *state, uint32_t average, const int32_t *ranks)
{
    gsSeal seal;
    int old = state->fault != GS_FAULT_NONE;
    seal.verdict = old ? state->fault : state->verdict;
    seal.verdictRank = old ? state->faultRank : (uint32_t)ranks[state->verdictRank];
    seal.nonFinite = state->anyNonFinite;
    seal.call = gsSealCall(state, average);
    return seal;
}

/* What the seals of n slots come to for this half: those of the halves before it count. */
GS_HD void gsSealOpen(gsState *state, uint32_t average, const uint8_t *slots, uint64_t slotBytes, uint32_t n,
                      uint32_t half)
{
    uint32_t i, h, call = gsSealCall(state, average);
    state->verdict = GS_FAULT_NONE;
    state->verdictRank = 0;
    state->anyNonFinite = 0;
    for (i = 0; i < n; i++) {
        const gsSeal *seals = (const gsSeal *)(const void *)(slots + (i + 1) * slotBytes) - GS_SEALS;
        if (state->verdict == GS_FAULT_NONE && seals[half].call != call) {
            state->verdict = (seals[half].call ^ call) == 1u ? GS_FAULT_OP : GS_FAULT_STEP;
            state->verdictRank = i;
        }
        for (h = 0; h <= half; h++) {
            state->anyNonFinite |= seals[h].nonFinite;
            if (state->verdict != GS_FAULT_NONE)
                continue;
            state->verdict = seals[h].verdict;
            state->verdictRank = seals[h].verdictRank;
        }
    }
}

#endif
