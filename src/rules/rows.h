/* Rows of a matrix that stand one behind the other, cut at blocks as they come: a row travels iff an element of it is not 0. */
#ifndef GS_RULES_ROWS_H
#define GS_RULES_ROWS_H

#include "numeric.h"

/* rows: a bit each. */
GS_HD uint32_t gsRowTravels(const uint8_t *rows, uint64_t row)
{
    return rows[row / 8] >> row % 8 & 1u;
}

/* Where a row ends that begins before the end of `n` elements from `first` on: a place among them. */
GS_HD uint32_t gsRowEnd(uint64_t row, uint32_t width, uint64_t first, uint32_t n)
{
    uint64_t end = (row + 1) * width - first;
    return end < n ? (uint32_t)end : n;
}

#endif
