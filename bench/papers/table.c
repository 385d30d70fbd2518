/* table.c: rows and figures: adding, printing, JSON. */
#include "table.h"

#include "train/json_values.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *name;
    const char *heading;
    const char *format;
} figureText_t;

static const figureText_t texts[FIGURE_COUNT] = {
    [FIGURE_UPLOADS] = {"uploads", "uploads", "%.0f"},
    [FIGURE_ITERATIONS] = {"iterations", "iterations", "%.0f"},
    [FIGURE_BITS] = {"bits", "bits", "%.4g"},
    [FIGURE_WIRE_BYTES] = {"wire_bytes", "wire bytes", "%.4g"},
    [FIGURE_DENSITY] = {"density", "density", "%.4f"},
    [FIGURE_VARIANCE_RATIO] = {"variance_ratio", "variance", "%.5g"},
    [FIGURE_OBJECTIVE_ERROR] = {"objective_error", "f - f*", "%.2e"},
    [FIGURE_GRADIENT_NORM2] = {"gradient_norm2", "|grad f|^2", "%.1e"},
    [FIGURE_GRADIENT_NORM2_LEAST] = {"gradient_norm2_least", "least", "%.1e"},
    [FIGURE_GRADIENT_NORM2_MOST] = {"gradient_norm2_most", "most", "%.1e"},
    [FIGURE_C_NZ] = {"c_nz", "C_nz", "%.2e"},
    [FIGURE_STEP_SIZE] = {"step_size", "step", "%.4g"},
};

enum { FIRST_ROOM = 32, COLUMN_WIDTH = 11 };

row_t *tableAdd(table_t *table, const char *setting, int workers, const char *method)
{
    if (table->count == table->room) {
        int room = table->room ? 2 * table->room : FIRST_ROOM;
        row_t *rows = realloc(table->rows, (size_t)room * sizeof *rows);
        if (!rows) {
            fail("no memory for %d rows", room);
            return NULL;
        }
        table->rows = rows;
        table->room = room;
    }
    row_t *row = &table->rows[table->count++];
    *row = (row_t){.table = table->name, .workers = workers};
    snprintf(row->setting, sizeof row->setting, "%s", setting);
    snprintf(row->method, sizeof row->method, "%s", method);
    for (int i = 0; i < FIGURE_COUNT; i++)
        row->figures[i] = NAN;
    return row;
}

void tableFree(table_t *table)
{
    free(table->rows);
    table->rows = NULL;
    table->count = table->room = 0;
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

static bool sameGroup(const row_t *a, const row_t *b)
{
    return a->workers == b->workers && strcmp(a->setting, b->setting) == 0;
}

static int groupEnd(const table_t *table, int first)
{
    int end = first + 1;
    while (end < table->count && sameGroup(&table->rows[first], &table->rows[end]))
        end++;
    return end;
}

static bool hasFigure(const row_t *rows, int count, int figure)
{
    for (int i = 0; i < count; i++)
        if (!isnan(rows[i].figures[figure]))
            return true;
    return false;
}

static int widestMethod(const table_t *table)
{
    int widest = 0;
    for (int i = 0; i < table->count; i++)
        widest = (int)strlen(table->rows[i].method) > widest ? (int)strlen(table->rows[i].method) : widest;
    return widest;
}

static void printFigure(double figure, const char *format)
{
    char text[32] = "-";
    if (!isnan(figure))
        snprintf(text, sizeof text, format, figure);
    printf(" %*s", COLUMN_WIDTH, text);
}

static void printUploads(const row_t *row)
{
    printf("  ");
    for (int m = 0; m < row->workers; m++)
        printf(" %llu", (unsigned long long)row->uploads[m]);
}

static void printRow(const row_t *row, const bool *shown, int width)
{
    printf("%-*s", width, row->method);
    for (int i = 0; i < FIGURE_COUNT; i++)
        if (shown[i])
            printFigure(row->figures[i], texts[i].format);
    if (row->hasUploads)
        printUploads(row);
    putchar('\n');
}

static void printGroup(const row_t *rows, int count, int width)
{
    bool shown[FIGURE_COUNT];
    printf("\n%s, %d worker%s\n%-*s", rows->setting, rows->workers, rows->workers == 1 ? "" : "s", width, "method");
    for (int i = 0; i < FIGURE_COUNT; i++) {
        shown[i] = hasFigure(rows, count, i);
        if (shown[i])
            printf(" %*s", COLUMN_WIDTH, texts[i].heading);
    }
    puts(rows->hasUploads ? "   of each worker" : "");
    for (int i = 0; i < count; i++)
        printRow(&rows[i], shown, width);
}

void tablePrint(const table_t *table)
{
    int width = widestMethod(table);
    printf("%s\n", table->title);
    for (int first = 0; first < table->count; first = groupEnd(table, first))
        printGroup(&table->rows[first], groupEnd(table, first) - first, width);
    printf("\nbits: %s.\nwire bytes: what left the workers through the library, float64 values and headers included.\n",
           table->bitsRule);
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

static void writeRow(FILE *file, const void *rows, int index)
{
    const row_t *row = (const row_t *)rows + index;
    jsonString(file, "  {", "table", row->table);
    jsonString(file, ", ", "case", row->setting);
    jsonCount(file, ", ", "workers", (uint64_t)row->workers);
    jsonString(file, ", ", "method", row->method);
    for (int i = 0; i < FIGURE_COUNT; i++)
        if (!isnan(row->figures[i]))
            jsonReal(file, ", ", texts[i].name, row->figures[i]);
    if (row->hasUploads)
        fputs(", \"uploads_per_worker\": [", file);
    for (int m = 0; row->hasUploads && m < row->workers; m++)
        fprintf(file, "%s%llu", m ? ", " : "", (unsigned long long)row->uploads[m]);
    fputs(row->hasUploads ? "]}" : "}", file);
}

bool tableWriteJson(const table_t *table, const char *path)
{
    return jsonWriteList(path, writeRow, table->rows, table->count);
}
