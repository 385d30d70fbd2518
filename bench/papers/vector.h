/* vector.h: the few operations on vectors of doubles that the benchmark needs beside the library. */
#ifndef PAPERS_VECTOR_H
#define PAPERS_VECTOR_H

#include <math.h>

static inline double vectorDot(const double *a, const double *b, int count)
{
    double sum = 0.0;
    for (int i = 0; i < count; i++)
        sum += a[i] * b[i];
    return sum;
}

static inline double vectorNorm2(const double *a, int count)
{
    return vectorDot(a, a, count);
}

static inline double vectorNorm(const double *a, int count)
{
    return sqrt(vectorNorm2(a, count));
}

static inline double vectorDistance2(const double *a, const double *b, int count)
{
    double sum = 0.0;
    for (int i = 0; i < count; i++)
        sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sum;
}

/* a += factor * b */
static inline void vectorAddMultiple(double *restrict a, double factor, const double *restrict b, int count)
{
    for (int i = 0; i < count; i++)
        a[i] += factor * b[i];
}

static inline void vectorScale(double *a, double factor, int count)
{
    for (int i = 0; i < count; i++)
        a[i] *= factor;
}

#endif
