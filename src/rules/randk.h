/*
 * randk: every coordinate travels with the same probability, as g / density; unbiased. The mask is drawn from the seed and the
 * step alone, so that all ranks know it and no index travels. The control that other recipes have to beat.
 */
#ifndef GS_RULES_RANDK_H
#define GS_RULES_RANDK_H

#include "philox.h"

/* The mask is everybody's: its draws name rank 0 on all ranks. */
GS_HD gsPhilox4 gsRandkDraws(uint64_t seed, uint64_t quad, uint64_t step)
{
    return gsPhilox(seed, quad, step, 0, GS_DRAW_MASK);
}

#endif
