/* gs_papers.c: the tables of the five papers, run through the library. */
#include "papers/paper.h"
#include "train/flags.h"

#include <stdio.h>
#include <string.h>

enum { EXIT_FAILED = 1, EXIT_USAGE = 2 };

static const paper_t *const papers[] = {&lagPaper, &gsparPaper, &gdsecPaper, &cdadamPaper, &tngPaper};
enum { PAPER_COUNT = sizeof papers / sizeof papers[0] };

#define AT(member) offsetof(settings_t, member)

static const flag_t flags[] = {
    {"--data-dir", FLAG_TEXT, AT(dataDir), "DIR", 0, 0, "where the files NAME.libsvm.gz are, default ."},
    {"--workers", FLAG_INTEGER, AT(workers), "M", 1, TEAM_MAX_WORKERS - 1, "default: the paper's"},
    {"--seed", FLAG_INTEGER, AT(seed), "N", 0, 2147483647, "of data, starts and recipes, default 1"},
    {"--density", FLAG_REAL, AT(density), "X", 1e-6, 1, "gspar: this share of coordinates instead of the paper's"},
    {"--draws", FLAG_INTEGER, AT(draws), "N", 1, 64,
     "cdadam: starting points, default 3; the published settings have 7"},
    {"--json", FLAG_TEXT, AT(json), "FILE", 0, 0, "write the rows, a list with one object for each"},
    {"--plot", FLAG_TEXT, AT(plot), "FILE", 0, 0, "draw how they got there, SVG"},
    {"--help", FLAG_SWITCH, AT(help), "", 0, 0, "this text"},
};
enum { FLAG_COUNT = sizeof flags / sizeof flags[0] };

static void printHelp(void)
{
    printf("gs_papers: the tables of the papers behind gradsieve, in double precision, with workers as threads\n\n"
           "usage: gs_papers TABLE [flags]\n\n");
    for (int i = 0; i < PAPER_COUNT; i++)
        flagsPrintRow(papers[i]->name, "", papers[i]->help);
    putchar('\n');
    flagsPrint(flags, FLAG_COUNT);
    printf("\nExit code: 0 done, 1 a row failed or was left out, 2 a command line that makes no sense.\n");
}

static const paper_t *findPaper(const char *name)
{
    for (int i = 0; i < PAPER_COUNT; i++)
        if (strcmp(papers[i]->name, name) == 0)
            return papers[i];
    fail("got table '%s', expected one of lag, gspar, gdsec, cdadam, tng", name);
    return NULL;
}

static bool report(bool done)
{
    if (!done)
        fprintf(stderr, "gs_papers: %s\n", failureText());
    return done;
}

static bool writeFiles(const table_t *table, const settings_t *settings)
{
    bool done = !settings->json || report(tableWriteJson(table, settings->json));
    return (!settings->plot || report(tablePlot(table, settings->plot))) && done;
}

/* What was done before a failure is written all the same. */
static int makeTable(const paper_t *paper, const settings_t *settings)
{
    table_t table = {paper->name, paper->title, paper->bitsRule, paper->x, paper->y, NULL, 0, 0};
    bool done = paper->fill(&table, settings);
    report(done);
    if (table.count) {
        tablePrint(&table);
        done &= writeFiles(&table, settings);
    }
    tableFree(&table);
    return done ? 0 : EXIT_FAILED;
}

int main(int argc, char **argv)
{
    settings_t settings = {.dataDir = ".", .seed = 1, .draws = 3};
    bool named = argc > 1 && argv[1][0] != '-';
    const paper_t *paper = named ? findPaper(argv[1]) : NULL;
    bool understood = (paper || !named) && flagsParse(flags, FLAG_COUNT, &settings, argc - named, argv + named);
    if (!report(understood))
        return EXIT_USAGE;
    if (paper && !settings.help)
        return makeTable(paper, &settings);
    printHelp();
    return settings.help ? 0 : EXIT_USAGE;
}
