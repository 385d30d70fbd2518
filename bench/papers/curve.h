/* curve.h: how a figure went over a run, as a bounded number of points. */
#ifndef PAPERS_CURVE_H
#define PAPERS_CURVE_H

enum { CURVE_POINTS = 256 };

typedef struct {
    int count;
    int stride, skipped; /* one in `stride` points is kept, `skipped` were passed over since the last */
    double x[CURVE_POINTS], y[CURVE_POINTS];
} curve_t;

/* When the room is used up, every second point goes and half as many come. */
static inline void curveAdd(curve_t *curve, double x, double y)
{
    if (curve->count == CURVE_POINTS) {
        curve->count /= 2;
        for (int i = 0; i < curve->count; i++) {
            curve->x[i] = curve->x[2 * i];
            curve->y[i] = curve->y[2 * i];
        }
        curve->stride *= 2;
    }
    if (curve->stride == 0)
        curve->stride = 1;
    if (curve->count > 0 && ++curve->skipped < curve->stride)
        return;
    curve->skipped = 0;
    curve->x[curve->count] = x;
    curve->y[curve->count++] = y;
}

#endif
