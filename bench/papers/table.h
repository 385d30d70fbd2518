/* table.h: the rows of a table, printed, written as JSON and drawn. */
#ifndef PAPERS_TABLE_H
#define PAPERS_TABLE_H

#include "curve.h"
#include "team.h"

#include <stdbool.h>

typedef enum {
    FIGURE_UPLOADS,
    FIGURE_ITERATIONS,
    FIGURE_BITS,
    FIGURE_WIRE_BYTES,
    FIGURE_DENSITY,
    FIGURE_VARIANCE_RATIO,
    FIGURE_OBJECTIVE_ERROR,
    FIGURE_GRADIENT_NORM2,
    FIGURE_GRADIENT_NORM2_LEAST,
    FIGURE_GRADIENT_NORM2_MOST,
    FIGURE_C_NZ,
    FIGURE_STEP_SIZE,
    FIGURE_COUNT
} figure_t;

typedef struct {
    const char *table;
    char setting[96]; /* "case" in the JSON */
    char method[96];
    int workers;
    double figures[FIGURE_COUNT]; /* NaN: none */
    bool hasUploads;
    uint64_t uploads[TEAM_MAX_WORKERS];
    curve_t curve;
} row_t;

typedef struct {
    const char *name;     /* lag, gspar ... */
    const char *title;    /* the method, its authors, where it was published */
    const char *bitsRule; /* how `bits` counts */
    const char *x, *y;    /* the plot's axes; y is logarithmic */
    row_t *rows;
    int count, room;
} table_t;

/* A row without figures; the last one is the table's until the next is added. NULL, with a failure text, without
 * memory. */
row_t *tableAdd(table_t *table, const char *setting, int workers, const char *method);

void tablePrint(const table_t *table);
bool tableWriteJson(const table_t *table, const char *path);
bool tablePlot(const table_t *table, const char *path);
void tableFree(table_t *table);

#endif
