/* plot.c: writes a gnuplot script with the data in it, and has gnuplot draw it as SVG. */
#include "plot.h"

#include "failure.h"

#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { WIDTH = 1100, PANELS_HEIGHT = 760, LEGEND_ROW = 22 };

/* Columns of the data blocks. */
enum { WIRE_MB = 1, SECONDS, LOSS, ACCURACY };

static const char *const colours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                      "#e69f00", "#56b4e9", "#000000", "#8c564b"};
enum { COLOUR_COUNT = sizeof colours / sizeof colours[0] };

/* gnuplot's single quotes know one escape: the quote, doubled. */
static void writeQuoted(FILE *file, const char *text)
{
    putc('\'', file);
    for (; *text; text++) {
        putc(*text, file);
        if (*text == '\'')
            putc('\'', file);
    }
    putc('\'', file);
}

static void writeData(FILE *file, const run_t *run, int index)
{
    double wire = 0.0, seconds = 0.0;
    fprintf(file, "$run%d << END\n", index);
    for (int e = 0; e < run->epochCount; e++) {
        const epoch_t *epoch = &run->epochs[e];
        wire += (double)epoch->wireBytes * 1e-6;
        seconds += epoch->compute + epoch->encode + epoch->exchange + epoch->decode;
        fprintf(file, "%.6g %.6g %.6g %.6g\n", wire, seconds, epoch->loss, 100.0 * epoch->accuracy);
    }
    fputs("END\n", file);
}

static void writePanel(FILE *file, const run_t *runs, int count, int x, int y, const char *labels)
{
    fprintf(file, "%s\nplot ", labels);
    for (int i = 0; i < count; i++) {
        fprintf(file, "%s$run%d using %d:%d with linespoints lw 2 pt 7 ps 0.5 lc rgb '%s' dt %d title ",
                i ? ", \\\n     " : "", i, x, y, colours[i % COLOUR_COUNT], 1 + i / COLOUR_COUNT);
        writeQuoted(file, runs[i].recipe);
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
static void writeScript(FILE *file, const char *path, const run_t *runs, int count)
{
    int legend = LEGEND_ROW * count;
    double foot = (double)legend / (PANELS_HEIGHT + legend);
    fprintf(file, "set terminal svg size %d,%d dynamic noenhanced font 'sans-serif,14' background 'white'\nset output ",
            WIDTH, PANELS_HEIGHT + legend);
    writeQuoted(file, path);
    fputs("\nset datafile missing 'nan'\nset grid lc rgb '#dddddd'\nset tics nomirror\nset border 3\n", file);
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
    snprintf(labels, sizeof labels, "set xlabel '%s'; set ylabel 'test accuracy, %%'", bytes);
    writePanel(file, runs, count, WIRE_MB, ACCURACY, labels);
    fputs("set key at screen 0.5,0.01 center bottom vertical maxcols 1 Left reverse samplen 3\n", file);
    snprintf(labels, sizeof labels, "unset logscale x; set autoscale x; set xlabel '%s'", time);
    writePanel(file, runs, count, SECONDS, ACCURACY, labels);
    fputs("unset multiplot\n", file);
}

static bool saveScript(const char *script, const char *path, const run_t *runs, int count)
{
    FILE *file = fopen(script, "w");
    if (!file)
        return fail("--plot: %s: %s", script, strerror(errno));
    writeScript(file, path, runs, count);
    bool written = !ferror(file);
    if (fclose(file) || !written)
        return fail("--plot: %s: %s", script, strerror(errno));
    return true;
}

static bool runGnuplot(const char *script)
{
    char *arguments[] = {"gnuplot", (char *)script, NULL};
    pid_t child;
    int status;
    if (posix_spawnp(&child, "gnuplot", NULL, NULL, arguments, environ))
        return fail("--plot: gnuplot cannot be started (Debian: apt-get install gnuplot-nox); its script is %s",
                    script);
    if (waitpid(child, &status, 0) != child || status != 0)
        return fail("--plot: gnuplot failed on its script %s", script);
    return true;
}

bool plotDraw(const char *path, const run_t *runs, int count)
{
    char script[4096];
    if (snprintf(script, sizeof script, "%s.gnuplot", path) >= (int)sizeof script)
        return fail("--plot: got a path of more than %zu bytes", sizeof script);
    if (!saveScript(script, path, runs, count) || !runGnuplot(script))
        return false;
    remove(script);
    return true;
}
