/* bits.h: the papers' charges for a message: their own accounting, applied to the counts of the library's records. */
#ifndef PAPERS_BITS_H
#define PAPERS_BITS_H

#include "gradsieve.h"

/* d elements, n of them sent; index = ceil(log2 d) bits. All but the last two charge what a worker sends, nothing for
 * what it receives. */
typedef enum {
    BITS_DENSE,      /* 32 d; nothing for a skip */
    BITS_GAPS,       /* min(n (32 + index), 32 n + d): positions by index or as a bitmap */
    BITS_ENTRIES,    /* n (32 + index) */
    BITS_HYBRID,     /* GSpar: A (32 + index) + min(B (index + 1), 2 d) + 32, A sent with p = 1, B with p < 1 */
    BITS_UNSIGNED,   /* the same without sign bits, as in the paper: A (32 + index) + min(B index, 2 d) + 32 */
    BITS_TERNARY,    /* 2 d + 32 */
    BITS_DENSE_BOTH, /* 64 d: up and down */
    BITS_SIGN_BOTH   /* 2 (32 + d): up and down */
} bitsRule_t;

/* One call's charge, from the statistics before and after it. */
double bitsOfCall(bitsRule_t rule, uint64_t count, const gsStats_t *before, const gsStats_t *after);

#endif
