/* plot.c: one panel for each setting of a table, with one line for each method. */
#include "table.h"

#include "train/gnuplot.h"

#include <math.h>
#include <string.h>

enum { WIDTH = 1100, PANEL_HEIGHT = 420, LEGEND_ROW = 20, PANELS_ACROSS = 2 };

static bool startsPanel(const table_t *table, int i)
{
    const row_t *row = &table->rows[i];
    return i == 0 || row->workers != row[-1].workers || strcmp(row->setting, row[-1].setting) != 0;
}

static int panelEnd(const table_t *table, int first)
{
    int end = first + 1;
    while (end < table->count && !startsPanel(table, end))
        end++;
    return end;
}

static int countPanels(const table_t *table)
{
    int panels = 0;
    for (int i = 0; i < table->count; i++)
        panels += startsPanel(table, i);
    return panels;
}

static int mostLines(const table_t *table)
{
    int most = 0;
    for (int first = 0; first < table->count; first = panelEnd(table, first))
        most = panelEnd(table, first) - first > most ? panelEnd(table, first) - first : most;
    return most;
}

/* A logarithmic axis has no place for what is not above 0. */
static void writeData(FILE *file, const curve_t *curve, int index)
{
    fprintf(file, "$row%d << END\n", index);
    for (int i = 0; i < curve->count; i++)
        fprintf(file, "%.6g %.6g\n", curve->x[i] > 0.0 ? curve->x[i] : NAN, curve->y[i] > 0.0 ? curve->y[i] : NAN);
    fputs("nan nan\nEND\n", file);
}

static void writePanel(FILE *file, const table_t *table, int first, int end)
{
    char title[160];
    snprintf(title, sizeof title, "%s, M = %d", table->rows[first].setting, table->rows[first].workers);
    fputs("set title ", file);
    gnuplotQuoted(file, title);
    fputs("\nplot ", file);
    for (int i = first; i < end; i++) {
        fprintf(file, "%s$row%d using 1:2 with linespoints lw 2 pt 7 ps 0.3 ", i > first ? ", \\\n     " : "", i);
        gnuplotLine(file, i - first);
        fputs(" title ", file);
        gnuplotQuoted(file, table->rows[i].method);
    }
    putc('\n', file);
}

static void writeScript(FILE *file, const char *path, const void *context)
{
    const table_t *table = context;
    int rows = (countPanels(table) + PANELS_ACROSS - 1) / PANELS_ACROSS;
    gnuplotStart(file, path, WIDTH, rows * (PANEL_HEIGHT + LEGEND_ROW * mostLines(table)));
    for (int i = 0; i < table->count; i++)
        writeData(file, &table->rows[i].curve, i);
    fprintf(file, "set multiplot layout %d,%d\nset logscale xy\nset format xy '%%g'\n", rows, PANELS_ACROSS);
    fputs("set key below vertical maxcols 1 Left reverse samplen 3\nset xlabel ", file);
    gnuplotQuoted(file, table->x);
    fputs("\nset ylabel ", file);
    gnuplotQuoted(file, table->y);
    putc('\n', file);
    for (int first = 0; first < table->count; first = panelEnd(table, first))
        writePanel(file, table, first, panelEnd(table, first));
    fputs("unset multiplot\n", file);
}

bool tablePlot(const table_t *table, const char *path)
{
    return gnuplotDraw(path, writeScript, table);
}
