/* plot.c: the gnuplot script of the runs, with the data in it. */
#include "plot.h"

#include "gnuplot.h"

enum { WIDTH = 1100, PANELS_HEIGHT = 760, LEGEND_ROW = 22 };

/* Columns of the data blocks. */
enum { WIRE_MB = 1, SECONDS, LOSS, MEASURE };

typedef struct {
    const run_t *runs;
    int count;
} runs_t;

static void writeData(FILE *file, const run_t *run, int index)
{
    double wire = 0.0, seconds = 0.0;
    fprintf(file, "$run%d << END\n", index);
    for (int e = 0; e < run->epochCount; e++) {
        const epoch_t *epoch = &run->epochs[e];
        wire += (double)epoch->wireBytes * 1e-6;
        seconds += epoch->compute + epoch->encode + epoch->exchange + epoch->decode;
        fprintf(file, "%.6g %.6g %.6g %.6g\n", wire, seconds, epoch->loss,
                run->model->type->measure->scale * epoch->measure);
    }
    fputs("END\n", file);
}

static void writePanel(FILE *file, const run_t *runs, int count, int x, int y, const char *labels)
{
    fprintf(file, "%s\nplot ", labels);
    for (int i = 0; i < count; i++) {
        fprintf(file, "%s$run%d using %d:%d with linespoints lw 2 pt 7 ps 0.5 ", i ? ", \\\n     " : "", i, x, y);
        gnuplotLine(file, i);
        fputs(" title ", file);
        gnuplotQuoted(file, runs[i].label);
    }
    putc('\n', file);
}

static bool allSend(const run_t *runs, int count)
{
    for (int i = 0; i < count; i++)
        if (runTotal(&runs[i]).wireBytes == 0)
            return false;
    return true;
}

/* Recipes differ in bytes by orders of magnitude: a logarithmic scale, unless a single rank has sent nothing. */
static void writeScript(FILE *file, const char *path, const void *context)
{
    const run_t *runs = ((const runs_t *)context)->runs;
    int count = ((const runs_t *)context)->count;
    int legend = LEGEND_ROW * count;
    double foot = (double)legend / (PANELS_HEIGHT + legend);
    gnuplotStart(file, path, WIDTH, PANELS_HEIGHT + legend);
    for (int i = 0; i < count; i++)
        writeData(file, &runs[i], i);
    fprintf(file, "set multiplot layout 2,2 margins 0.10,0.98,%.4f,0.97 spacing 0.11,0.11\nset key off\n", foot + 0.09);
    const char *scale = allSend(runs, count) ? "set logscale x\n" : "set xrange [-1:1]\n";
    fputs(scale, file);
    const char *bytes = "MB sent by a rank (wire)", *time = "seconds (compute, encode, exchange, decode)";
    char labels[256];
    snprintf(labels, sizeof labels, "set xlabel '%s'; set ylabel 'training loss'", bytes);
    writePanel(file, runs, count, WIRE_MB, LOSS, labels);
    snprintf(labels, sizeof labels, "unset logscale x; set autoscale x; set xlabel '%s'", time);
    writePanel(file, runs, count, SECONDS, LOSS, labels);
    fputs(scale, file);
    const model_t *model = runs[0].model;
    const measure_t *measure = model->type->measure;
    snprintf(labels, sizeof labels, "set xlabel '%s'; set ylabel '%s %s%s'", bytes,
             model->ownTest ? "test" : "training", measure->name, measure->unit);
    writePanel(file, runs, count, WIRE_MB, MEASURE, labels);
    fputs("set key at screen 0.5,0.01 center bottom vertical maxcols 1 Left reverse samplen 3\n", file);
    snprintf(labels, sizeof labels, "unset logscale x; set autoscale x; set xlabel '%s'", time);
    writePanel(file, runs, count, SECONDS, MEASURE, labels);
    fputs("unset multiplot\n", file);
}

bool plotDraw(const char *path, const run_t *runs, int count)
{
    runs_t context = {runs, count};
    return gnuplotDraw(path, writeScript, &context);
}
