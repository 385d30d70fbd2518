/*
 * curves.c: the gnuplot script of four panels: the modes' times against the number of ranks, the speed of the links and the density, and
 * which mode wins for each number of ranks and speed of links.
 */
#include "curves.h"

#include "train/failure.h"
#include "train/gnuplot.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { WIDTH = 1200, HEIGHT = 900, POINTS = 61, MOST_RANKS = 16384, RECIPE_ROOM = 400 };

/* What is varied around: a point of every panel. */
typedef struct {
    const gsReducerConfig_t *config;
    const gsCluster_t *cluster;
} centre_t;

/* A quantity along an axis, from `low` to `high` by equal factors. */
typedef struct {
    const char *name, *label;
    double low, high;
    int points;
    /* Plans at `value`; false where the recipe does not go with it. */
    bool (*plan)(const centre_t *centre, double value, gsPlan_t *plan);
    double (*now)(const centre_t *centre);
} axis_t;

/* ---- ranks ---- */

static gsCluster_t withRanks(const gsCluster_t *cluster, double ranks)
{
    gsCluster_t c = *cluster;
    double local = c.over == GS_OVER_THREADS ? ranks : fmin(c.ranksPerNode, ranks);
    c.ranksPerNode = (int)local;
    c.ranks = (int)(round(ranks / local) * local);
    return c;
}

static bool planRanks(const centre_t *centre, double ranks, gsPlan_t *plan)
{
    gsCluster_t c = withRanks(centre->cluster, ranks);
    return gsPlanChoose(centre->config, &c, plan) == GS_SUCCESS;
}

static double ranksNow(const centre_t *centre)
{
    return centre->cluster->ranks;
}

/* ---- links: between nodes, or inside the only one; Gbit/s ---- */

static bool isBetween(const gsCluster_t *c)
{
    return c->over != GS_OVER_THREADS && c->ranks > c->ranksPerNode;
}

static gsCluster_t withLinks(const gsCluster_t *cluster, double gigabits)
{
    gsCluster_t c = *cluster;
    *(isBetween(cluster) ? &c.bandwidth : &c.nodeBandwidth) = gigabits * 125e6;
    return c;
}

static bool planLinks(const centre_t *centre, double gigabits, gsPlan_t *plan)
{
    gsCluster_t c = withLinks(centre->cluster, gigabits);
    return gsPlanChoose(centre->config, &c, plan) == GS_SUCCESS;
}

static double linksNow(const centre_t *centre)
{
    return (isBetween(centre->cluster) ? centre->cluster->bandwidth : centre->cluster->nodeBandwidth) / 125e6;
}

/* ---- density ---- */

/* The recipe with density= or, for chunk-topk, k= of this density. */
static void recipeAt(const char *recipe, double density, char text[RECIPE_ROOM])
{
    size_t name = strcspn(recipe, ":");
    int chunked = strncmp(recipe, "chunk-topk", name) == 0;
    int at = snprintf(text, RECIPE_ROOM, "%.*s:%s=%.6g", (int)name, recipe, chunked ? "k" : "density",
                      chunked ? fmax(1, round(4096 * density)) : density);
    for (const char *pair = recipe + name; *pair; pair += 1 + strcspn(pair + 1, ",")) {
        int length = (int)strcspn(pair + 1, ",");
        if (strncmp(pair + 1, "density=", 8) && strncmp(pair + 1, "k=", 2) && at < RECIPE_ROOM)
            at += snprintf(text + at, (size_t)(RECIPE_ROOM - at), ",%.*s", length, pair + 1);
    }
}

static bool planDensity(const centre_t *centre, double density, gsPlan_t *plan)
{
    char recipe[RECIPE_ROOM];
    gsReducerConfig_t config = *centre->config;
    recipeAt(config.recipe, density, recipe);
    config.recipe = recipe;
    return gsPlanChoose(&config, centre->cluster, plan) == GS_SUCCESS;
}

static double densityNow(const centre_t *centre)
{
    gsPlan_t plan;
    return gsPlanChoose(centre->config, centre->cluster, &plan) == GS_SUCCESS ? plan.density : 1;
}

/* ---- the script ---- */

static const axis_t axes[] = {
    {"ranks", "ranks", 2, MOST_RANKS, 14, planRanks, ranksNow},
    {"links", "Gbit/s", 0.01, 10000, POINTS, planLinks, linksNow},
    {"density", "density of a record", 1e-5, 1, POINTS, planDensity, densityNow},
};
enum { AXES = sizeof axes / sizeof axes[0], RANKS = 0, LINKS = 1 };

static double valueAt(const axis_t *axis, int point)
{
    return axis->low * pow(axis->high / axis->low, (double)point / (axis->points - 1));
}

/* A line a point: the value, and every mode's milliseconds. */
static void writeAxis(FILE *file, const axis_t *axis, const centre_t *centre)
{
    fprintf(file, "$%s << END\n", axis->name);
    for (int point = 0; point < axis->points; point++) {
        gsPlan_t plan;
        bool possible = axis->plan(centre, valueAt(axis, point), &plan);
        fprintf(file, "%.6g", valueAt(axis, point));
        for (int mode = 0; mode < GS_MODES; mode++)
            if (possible && plan.seconds[mode] >= 0)
                fprintf(file, " %.6g", 1e3 * plan.seconds[mode]);
            else
                fputs(" nan", file);
        putc('\n', file);
    }
    fputs("END\n", file);
}

static void writeCurves(FILE *file, const axis_t *axis, const centre_t *centre)
{
    fprintf(file, "set xlabel '%s'; set ylabel 'ms a call'; set logscale xy; unset arrow\n", axis->label);
    fprintf(file, "set xrange [%g:%g]\n", axis->low, axis->high);
    fprintf(file, "set arrow from first %.6g, graph 0 to first %.6g, graph 1 nohead lc rgb '#999999' dt 3 back\nplot ",
            axis->now(centre), axis->now(centre));
    for (int mode = 0; mode < GS_MODES; mode++) {
        fprintf(file, "%s$%s using 1:%d with lines lw 2.5 ", mode ? ", \\\n     " : "", axis->name, mode + 2);
        gnuplotLine(file, mode);
        fprintf(file, " title '%s'", gsGetModeName((gsMode_t)mode));
    }
    putc('\n', file);
}

/* The boxes that a mode wins: x, y, and their borders. */
static void writeWins(FILE *file, const centre_t *centre, gsMode_t mode)
{
    const axis_t *x = &axes[RANKS], *y = &axes[LINKS];
    double half[2] = {sqrt(valueAt(x, 1) / valueAt(x, 0)), sqrt(valueAt(y, 1) / valueAt(y, 0))};
    fprintf(file, "$wins%d << END\n", mode);
    fputs("nan nan nan nan nan nan\n", file); /* a mode that never wins has a block all the same */
    for (int i = 0; i < x->points; i++)
        for (int j = 0; j < y->points; j++) {
            double ranks = valueAt(x, i), links = valueAt(y, j);
            gsCluster_t c = withLinks(centre->cluster, links);
            gsPlan_t plan;
            if (planRanks(&(centre_t){centre->config, &c}, ranks, &plan) && plan.mode == mode)
                fprintf(file, "%.6g %.6g %.6g %.6g %.6g %.6g\n", ranks, links, ranks / half[0], ranks * half[0],
                        links / half[1], links * half[1]);
        }
    fputs("END\n", file);
}

static void writeMap(FILE *file, const centre_t *centre)
{
    fprintf(file, "set xlabel '%s'; set ylabel '%s'; unset arrow; set style fill solid noborder\n", axes[RANKS].label,
            axes[LINKS].label);
    fprintf(file, "set xrange [%g:%g]; set yrange [%g:%g]; set label 1 'the fastest' at graph 0.03,0.95 front\nplot ",
            axes[RANKS].low, axes[RANKS].high, axes[LINKS].low, axes[LINKS].high);
    for (int mode = 0; mode < GS_MODES; mode++) {
        fprintf(file, "$wins%d using 1:2:3:4:5:6 with boxxyerror ", mode);
        gnuplotLine(file, mode);
        fprintf(file, " title '%s', \\\n     ", gsGetModeName((gsMode_t)mode));
    }
    fprintf(file, "'+' using (%.6g):(%.6g) every ::::0 with points pt 2 ps 1.5 lw 2 lc rgb 'black' notitle\n",
            ranksNow(centre), linksNow(centre));
}

static void writeScript(FILE *file, const char *path, const void *context)
{
    const centre_t *centre = context;
    gnuplotStart(file, path, WIDTH, HEIGHT);
    for (int a = 0; a < (int)AXES; a++)
        writeAxis(file, &axes[a], centre);
    for (int mode = 0; mode < GS_MODES; mode++)
        writeWins(file, centre, (gsMode_t)mode);
    fputs("set multiplot layout 2,2 margins 0.08,0.98,0.14,0.93 spacing 0.09,0.10\nset key off\n", file);
    for (int a = 0; a < (int)AXES; a++)
        writeCurves(file, &axes[a], centre);
    fputs("set key at screen 0.5,0.02 center bottom horizontal Left reverse samplen 3\n", file);
    writeMap(file, centre);
    fputs("unset multiplot\n", file);
}

bool curvesDraw(const char *path, const gsReducerConfig_t *config, const gsCluster_t *cluster)
{
    centre_t centre = {config, cluster};
    return gnuplotDraw(path, writeScript, &centre);
}
