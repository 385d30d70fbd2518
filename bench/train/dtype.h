/* dtype.h: the types in which a gradient is handed over, and how the parameters are kept and stepped beside each. */
#ifndef TRAIN_DTYPE_H
#define TRAIN_DTYPE_H

#include "gradsieve.h"

#include <stddef.h>
#include <stdint.h>

typedef struct {
    gsDataType_t type;
    size_t bytes; /* of an element of parameters, velocity and gradient before it is narrowed: float or double */

    /* 16-bit types, else NULL. To nearest, ties to even; a NaN stays one. */
    void (*narrow)(const float *from, uint16_t *to, size_t count);
    void (*widen)(const uint16_t *from, float *to, size_t count);

    /* Heavy-ball momentum: velocity = momentum * velocity + gradient; parameters -= rate * velocity. */
    void (*step)(void *parameters, void *velocity, const void *gradient, size_t count, double rate, double momentum);
} dtype_t;

/* dtype: DTYPE_*. */
const dtype_t *dtypeOf(int dtype);

#endif
