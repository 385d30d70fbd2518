/* libsvm.h: data sets in LIBSVM's text, `label index:value ...` with zeros left out, gzipped or plain. */
#ifndef DATA_LIBSVM_H
#define DATA_LIBSVM_H

#include <stdbool.h>
#include <stddef.h>

/* A sparse matrix by rows: row r has the values rowStart[r] .. rowStart[r + 1] - 1, columns increasing. */
typedef struct {
    int rows;
    int columns;      /* the largest index of the file */
    size_t *rowStart; /* rows + 1 */
    int *column;      /* from 0 */
    double *value;
    double *label; /* rows */
} libsvm_t;

/* False, with a failure text that names file, line and what was expected, where the file cannot be read. libsvmFree in
 * either case. */
bool libsvmRead(libsvm_t *set, const char *path);
void libsvmFree(libsvm_t *set);

#endif
