/* dtype.h: the types in which a gradient is handed over, and the type of the parameters beside each. */
#ifndef TRAIN_DTYPE_H
#define TRAIN_DTYPE_H

#include "gradsieve.h"

#include <stddef.h>
#include <stdint.h>

typedef struct {
    gsDataType_t type;
    gsDataType_t state; /* of parameters, velocity and gradient before it is narrowed: float or double */
    size_t stateBytes;

    /* 16-bit types, else NULL. To nearest, ties to even; a NaN stays one. */
    void (*narrow)(const float *from, uint16_t *to, size_t count);
    void (*widen)(const uint16_t *from, float *to, size_t count);
} dtype_t;

/* dtype: DTYPE_*. */
const dtype_t *dtypeOf(int dtype);

#endif
