/*
 * all_reduce_check.h: what gs_all_reduce_perf counts as #wrong.
 *
 * Each recipe is run for a few steps from a fresh state, with the same gradient at every step:
 *   alone     for each rank in turn with that rank's gradient, zeros on all others. What comes out is what that rank's
 *             record says, and the rank holds it against its own gradient g, step by step. It must be as many
 *             coordinates as the record holds, and
 *             with feedback  a = g + e, where e is kept here as a minus what came out. A coordinate that came out must
 *                            equal a within the rounding of a bfloat16, and in no block of 4096 may a larger one have
 *                            stayed behind (unless the record was full).
 *             without        a coordinate that came out must have g's sign and at least g's magnitude, since its
 *                            probability g/value is at most 1; and the magnitudes that came out must sum to those of g
 *                            within eight standard deviations, or all of them are wrong.
 *   together  all ranks with their gradients, out of place and in place. The result must be what came out alone, summed
 *             in double precision, within the rounding of the sum; for `dense`, the gradients themselves, summed
 *             so. Elements that are not the same bits on all ranks are wrong too.
 * Recipes that compare a gradient with more than a residual, or code all coordinates together, are held to the last sentence alone:
 * what comes out of one rank's record is then not that rank's gradient, coordinate by coordinate.
 * So "alone" ties the result to the gradient, "together" ties the collective to it.
 */
#ifndef ALL_REDUCE_CHECK_H
#define ALL_REDUCE_CHECK_H

#include "perf.h"
#include "train/ranks.h"

/* One rank's side of a row. */
typedef struct {
    const rank_t *rank;
    gsReducer_t reducer;
    const char *recipe;
    const void *gradient;   /* of this rank */
    void *result;           /* room for one */
    const perfList_t *list; /* its tensors, one behind the other; NULL: it is one */
    size_t count;
    gsDataType_t type;
    gsRedOp_t op;
    gsCollective_t collective; /* of a half: half_check.h */
} checkJob_t;

typedef struct {
    uint64_t alone;       /* wrong elements of this rank's record */
    uint64_t together[2]; /* of the results out of place and in place; the alone ones not included */
    double relativeError; /* of one out-of-place call from a fresh state, |result - sum| / |sum| (Euclidean norms) */
} checkResult_t;

/* Every rank calls it. The figures of `together` and the error are those of the first rank of this process. */
checkResult_t checkRow(const checkJob_t *job);

#endif
