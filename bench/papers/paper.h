/* paper.h: what a paper's table is made from, and running one of its rows. */
#ifndef PAPERS_PAPER_H
#define PAPERS_PAPER_H

#include "descent.h"
#include "table.h"

typedef struct {
    const char *dataDir;
    int workers; /* 0: the paper's */
    int seed;
    double density; /* 0: the paper's */
    int draws;      /* starting points of CD-Adam */
    const char *json, *plot;
    bool help;
} settings_t;

typedef struct {
    const char *name;
    const char *help;     /* for the list of tables */
    const char *title;    /* the method, its authors, where it was published */
    const char *bitsRule; /* how `bits` counts */
    const char *x, *y;    /* the plot's axes */
    bool (*fill)(table_t *table, const settings_t *settings);
} paper_t;

extern const paper_t lagPaper, gsparPaper, gdsecPaper, cdadamPaper, tngPaper;

/* Runs the job, by descent where one is given, and tells on stderr how it went. The outcome has to be freed in any
 * case. */
bool paperRun(const table_t *table, team_t *team, const char *setting, const char *method, job_t *job,
              const descent_t *descent, outcome_t *outcome);

/* Adds the row of a run: steps, bits, wire bytes, density, curve. NULL, with a failure text, without memory. */
row_t *paperAdd(table_t *table, const team_t *team, const char *setting, const char *method, const outcome_t *outcome);

/* Tells why a whole setting is left out; returns false. */
bool paperLeaveOut(const table_t *table, const char *setting);

#endif
