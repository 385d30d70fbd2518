/* data.h: data sets by name, and the labels the papers give them. */
#ifndef PAPERS_DATA_H
#define PAPERS_DATA_H

#include "data/libsvm.h"

#include <stdint.h>

/* Reads NAME.libsvm.gz of the directory. False, with a failure text, where that cannot be done. */
bool dataRead(libsvm_t *set, const char *directory, const char *name);

/* Leaves out all columns from number `columns` on. */
void dataCut(libsvm_t *set, int columns);

/* The smallest label becomes -1, all others +1. */
void dataSignLabels(libsvm_t *set);

typedef struct {
    int rows, columns;
    double shrink, below; /* C1 and C2 of the paper: column scales up to C2 are multiplied by C1 */
} skew_t;

/* GSpar's synthetic data: rows of normal numbers times uniform column scales, some of them shrunk; labels from a random
 * plane of the unscaled rows. */
bool dataGenerate(libsvm_t *set, const skew_t *skew, uint64_t seed);

/* `rows` rows and `columns` columns, all entries there and 0. */
bool dataMakeFull(libsvm_t *set, int rows, int columns);

#endif
