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

enum { WIDTH = 1200, HEIGHT = 940, POINTS = 61, MOST_RANKS = 16384, RECIPE_ROOM = 400 };

/* What is varied around: a point of every panel. */
typedef struct {
    const gsReducerConfig_t *config;
    const gsCluster_t *cluster;
} centre_t;

/* A quantity along an axis, from `low` to `high` by equal factors. */
typedef struct {
    const char *name, *title, *label, *tics;
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
    {"ranks", "against the number of ranks", "ranks", "(2, 8, 32, 128, 512, 2048, 16384)", 2, MOST_RANKS, 14, planRanks,
     ranksNow},
    {"links", "against the speed of the links", "Gbit/s", "1e-2,10,1e4", 0.01, 10000, POINTS, planLinks, linksNow},
    {"density", "against the density of a record", "share of the coordinates", "1e-5,10,1", 1e-5, 1, POINTS,
     planDensity, densityNow},
};
enum { AXES = sizeof axes / sizeof axes[0], RANKS = 0, LINKS = 1 };

static double valueAt(const axis_t *axis, int point)
{
    return axis->low * pow(axis->high / axis->low, (double)point / (axis->points - 1));
}

/* A line a point: the value, and every mode's milliseconds. possible[]: whether the mode is anywhere. */
static void writeAxis(FILE *file, const axis_t *axis, const centre_t *centre, bool possible[GS_MODES])
{
    memset(possible, 0, GS_MODES * sizeof *possible);
    fprintf(file, "$%s << END\n", axis->name);
    for (int point = 0; point < axis->points; point++) {
        gsPlan_t plan;
        bool planned = axis->plan(centre, valueAt(axis, point), &plan);
        fprintf(file, "%.6g", valueAt(axis, point));
        for (int mode = 0; mode < GS_MODES; mode++)
            if (planned && plan.seconds[mode] >= 0) {
                fprintf(file, " %.6g", 1e3 * plan.seconds[mode]);
                possible[mode] = true;
            } else {
                fputs(" nan", file);
            }
        putc('\n', file);
    }
    fputs("END\n", file);
}

static void writeCurves(FILE *file, const axis_t *axis, const centre_t *centre, const bool possible[GS_MODES])
{
    const char *lead = "";
    fprintf(file, "set title '%s'; set xlabel '%s'; set ylabel 'ms a call'; unset arrow\n", axis->title, axis->label);
    fprintf(file, "set xrange [%g:%g]; set xtics %s\n", axis->low, axis->high, axis->tics);
    fprintf(file, "set arrow from first %.6g, graph 0 to first %.6g, graph 1 nohead lc rgb '#666666' dt 2\nplot ",
            axis->now(centre), axis->now(centre));
    for (int mode = 0; mode < GS_MODES; mode++) {
        if (!possible[mode])
            continue;
        fprintf(file, "%s$%s using 1:%d with lines lw 2.5 ", lead, axis->name, mode + 2);
        gnuplotLine(file, mode);
        fprintf(file, " title '%s'", gsGetModeName((gsMode_t)mode));
        lead = ", \\\n     ";
    }
    putc('\n', file);
}

/* Writes the boxes that a mode wins, by their middle and their borders; returns how many. */
static int writeWins(FILE *file, const centre_t *centre, gsMode_t mode)
{
    const axis_t *x = &axes[RANKS], *y = &axes[LINKS];
    double halfX = sqrt(valueAt(x, 1) / valueAt(x, 0)), halfY = sqrt(valueAt(y, 1) / valueAt(y, 0));
    int wins = 0;
    fprintf(file, "$wins%d << END\n", mode);
    for (int i = 0; i < x->points; i++)
        for (int j = 0; j < y->points; j++) {
            double ranks = valueAt(x, i), links = valueAt(y, j);
            gsCluster_t c = withLinks(centre->cluster, links);
            gsPlan_t plan;
            if (!planRanks(&(centre_t){centre->config, &c}, ranks, &plan) || plan.mode != mode)
                continue;
            fprintf(file, "%.6g %.6g %.6g %.6g %.6g %.6g\n", ranks, links, ranks / halfX, ranks * halfX, links / halfY,
                    links * halfY);
            wins++;
        }
    fputs("END\n", file);
    return wins;
}

static void writeMap(FILE *file, const centre_t *centre, const int wins[GS_MODES])
{
    const axis_t *x = &axes[RANKS], *y = &axes[LINKS];
    fprintf(file, "set title 'the fastest, by ranks and links'; set xlabel '%s'; set ylabel '%s'; unset arrow\n",
            x->label, y->label);
    fprintf(file, "set xrange [%g:%g]; set yrange [%g:%g]; set xtics %s; set style fill solid noborder\nplot ", x->low,
            x->high, y->low, y->high, x->tics);
    for (int mode = 0; mode < GS_MODES; mode++) {
        if (wins[mode] == 0)
            continue;
        fprintf(file, "$wins%d using 1:2:3:4:5:6 with boxxyerror ", mode);
        gnuplotLine(file, mode);
        fputs(" notitle, \\\n     ", file);
    }
    fprintf(file, "'+' using (%.6g):(%.6g) every ::::0 with points pt 2 ps 1.5 lw 2 lc rgb 'black' notitle\n",
            ranksNow(centre), linksNow(centre));
}

static void writeHead(FILE *file, const centre_t *centre)
{
    static const char *const overs[] = {"MPI", "threads", "NCCL"};
    const gsCluster_t *c = centre->cluster;
    char text[RECIPE_ROOM];
    snprintf(text, sizeof text, "%s, %.4g million elements, %d ranks, %d a node, over %s", centre->config->recipe,
             1e-6 * (double)centre->config->count, c->ranks, c->ranksPerNode, overs[c->over]);
    fputs("set multiplot layout 2,2 margins 0.08,0.975,0.155,0.915 spacing 0.11,0.13 title ", file);
    gnuplotQuoted(file, text);
    fputs("\nset logscale xy; set format '%g'\n", file);
}

static void writeScript(FILE *file, const char *path, const void *context)
{
    const centre_t *centre = context;
    int wins[GS_MODES];
    bool possible[AXES][GS_MODES];
    gnuplotStart(file, path, WIDTH, HEIGHT);
    for (int a = 0; a < (int)AXES; a++)
        writeAxis(file, &axes[a], centre, possible[a]);
    for (int mode = 0; mode < GS_MODES; mode++)
        wins[mode] = writeWins(file, centre, (gsMode_t)mode);
    writeHead(file, centre);
    fputs("set key at screen 0.5,0.01 center bottom horizontal maxcols 6 Left reverse samplen 3 width 1\n", file);
    for (int a = 0; a < (int)AXES; a++) {
        writeCurves(file, &axes[a], centre, possible[a]);
        fputs("set key off\n", file);
    }
    writeMap(file, centre, wins);
    fputs("unset multiplot\n", file);
}

bool curvesDraw(const char *path, const gsReducerConfig_t *config, const gsCluster_t *cluster)
{
    centre_t centre = {config, cluster};
    return gnuplotDraw(path, writeScript, &centre);
}
