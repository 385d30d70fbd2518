/* draw.h: uniform and normal numbers from the small generator. */
#ifndef PAPERS_DRAW_H
#define PAPERS_DRAW_H

#include "train/random.h"

#include <math.h>

/* 0 <= u < 1 */
static inline double drawUniform(random_t *random)
{
    return (double)(randomNext(random) >> 11) * 0x1p-53;
}

/* Box and Muller; the second number is not kept. */
static inline double drawNormal(random_t *random)
{
    const double twoPi = 6.283185307179586;
    double radius = sqrt(-2.0 * log(1.0 - drawUniform(random)));
    return radius * cos(twoPi * drawUniform(random));
}

/* An index, each with probability proportional to its weight. */
static inline int drawWeighted(random_t *random, const double *weights, int count)
{
    double total = 0.0, left;
    for (int i = 0; i < count; i++)
        total += weights[i];
    left = drawUniform(random) * total;
    for (int i = 0; i < count - 1; i++) {
        left -= weights[i];
        if (left < 0.0)
            return i;
    }
    return count - 1;
}

#endif
