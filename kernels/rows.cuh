/* Rows as blocks cut them: which one an element is of, and which elements the rows that travel have. */
#ifndef GS_ROWS_CUH
#define GS_ROWS_CUH

#include "block.cuh"

/* The rows of a block. Its first element is number `into` of row `first`. */
struct gsBlockRows {
    uint64_t start, first; /* the block's first element and its row */
    uint32_t into, width;

    __device__ __forceinline__ gsBlockRows(uint32_t width, uint64_t b) : start(b * GS_BLOCK), width(width)
    {
        first = start / width;
        into = (uint32_t)(start - first * width);
    }

    /* How many rows after the first the element at this place has its own; no division of 64 bits. */
    __device__ __forceinline__ uint32_t after(unsigned place) const
    {
        const uint64_t at = (uint64_t)into + place;
        if (at < width)
            return 0;
        return width >= GS_BLOCK ? 1u : (uint32_t)at / width; /* into < width: at < 2 width */
    }

    /* The places 32 w .. 32 w + 31 of a block of `length` that are of rows with a bit, as bits. */
    __device__ __forceinline__ uint32_t kept(const uint8_t *rows, unsigned length, unsigned w) const
    {
        const unsigned end = length < 32 * w + 32 ? length : 32 * w + 32;
        unsigned at = 32 * w, next;
        uint32_t word = 0;
        if (at >= end)
            return 0;
        for (uint64_t row = first + after(at); at < end; row++, at = next) {
            next = gsRowEnd(row, width, start, end);
            if (gsRowTravels(rows, row))
                word |= ~0u >> (32 - (next - at)) << at % 32;
        }
        return word;
    }
};

/* Whether four neighbours at a multiple of four are of one row, and have neighbouring slots at a multiple of four. */
__device__ __forceinline__ bool gsRowsAreQuads(const gsSpec &spec)
{
    return spec.width % 4 == 0;
}

#endif
