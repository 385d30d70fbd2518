/* paper.c: one row at a time, with a line on stderr for each. */
#include "paper.h"

#include "train/clock.h"

#include <stdio.h>

bool paperLeaveOut(const table_t *table, const char *setting)
{
    fprintf(stderr, "%s: %s: left out: %s\n", table->name, setting, failureText());
    return false;
}

bool paperRun(const table_t *table, team_t *team, const char *setting, const char *method, job_t *job,
              const descent_t *descent, outcome_t *outcome)
{
    double start = clockSeconds();
    fprintf(stderr, "%s: %s, M = %d: %s ... ", table->name, setting, teamWorkers(team), method);
    if (!(descent ? descentRun(team, job, descent, outcome) : teamRun(team, job, outcome))) {
        fprintf(stderr, "failed: %s\n", failureText());
        return false;
    }
    fprintf(stderr, "%llu steps, %.2f s\n", (unsigned long long)outcome->steps, clockSeconds() - start);
    return true;
}

row_t *paperAdd(table_t *table, const team_t *team, const char *setting, const char *method, const outcome_t *outcome)
{
    row_t *row = tableAdd(table, setting, teamWorkers(team), method);
    if (!row)
        return NULL;
    row->figures[FIGURE_ITERATIONS] = (double)outcome->steps;
    row->figures[FIGURE_BITS] = outcome->bits;
    row->figures[FIGURE_WIRE_BYTES] = outcome->wireBytes;
    row->figures[FIGURE_DENSITY] = outcome->density;
    row->curve = outcome->curve;
    return row;
}
