/* data.c: reading, cutting, labelling and generating data sets. */
#include "data.h"

#include "draw.h"
#include "train/failure.h"

#include <stdio.h>
#include <stdlib.h>

bool dataRead(libsvm_t *set, const char *directory, const char *name)
{
    char path[4096];
    *set = (libsvm_t){0};
    if (snprintf(path, sizeof path, "%s/%s.libsvm.gz", directory, name) >= (int)sizeof path)
        return fail("--data-dir: got a path of more than %zu bytes", sizeof path);
    return libsvmRead(set, path);
}

void dataCut(libsvm_t *set, int columns)
{
    size_t kept = 0;
    for (int row = 0; row < set->rows; row++) {
        size_t at = set->rowStart[row], end = set->rowStart[row + 1];
        set->rowStart[row] = kept;
        for (; at < end && set->column[at] < columns; at++, kept++) {
            set->column[kept] = set->column[at];
            set->value[kept] = set->value[at];
        }
    }
    set->rowStart[set->rows] = kept;
    set->columns = columns;
}

void dataSignLabels(libsvm_t *set)
{
    double smallest = set->label[0];
    for (int row = 0; row < set->rows; row++)
        smallest = set->label[row] < smallest ? set->label[row] : smallest;
    for (int row = 0; row < set->rows; row++)
        set->label[row] = set->label[row] == smallest ? -1.0 : 1.0;
}

bool dataMakeFull(libsvm_t *set, int rows, int columns)
{
    size_t values = (size_t)rows * (size_t)columns;
    *set = (libsvm_t){.rows = rows, .columns = columns};
    set->rowStart = malloc(((size_t)rows + 1) * sizeof *set->rowStart);
    set->column = malloc(values * sizeof *set->column);
    set->value = calloc(values, sizeof *set->value);
    set->label = calloc((size_t)rows, sizeof *set->label);
    if (!set->rowStart || !set->column || !set->value || !set->label)
        return fail("no memory for %d x %d values", rows, columns);
    for (int row = 0; row <= rows; row++)
        set->rowStart[row] = (size_t)row * (size_t)columns;
    for (size_t at = 0; at < values; at++)
        set->column[at] = (int)(at % (size_t)columns);
    return true;
}

bool dataGenerate(libsvm_t *set, const skew_t *skew, uint64_t seed)
{
    random_t random = randomMake(seed, 0);
    double plane[skew->columns], scale[skew->columns];
    if (!dataMakeFull(set, skew->rows, skew->columns))
        return false;
    for (int i = 0; i < skew->columns; i++) {
        scale[i] = drawUniform(&random);
        scale[i] *= scale[i] <= skew->below ? skew->shrink : 1.0;
        plane[i] = drawNormal(&random);
    }
    for (int row = 0; row < skew->rows; row++) {
        double *values = set->value + set->rowStart[row], side = 0.0;
        for (int i = 0; i < skew->columns; i++) {
            double normal = drawNormal(&random);
            values[i] = normal * scale[i];
            side += normal * plane[i];
        }
        set->label[row] = side < 0.0 ? -1.0 : 1.0;
    }
    return true;
}
