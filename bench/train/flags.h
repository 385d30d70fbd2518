/* flags.h: a program's flags as one table, from which the command line is read and the help is printed. */
#ifndef TRAIN_FLAGS_H
#define TRAIN_FLAGS_H

#include <stdbool.h>
#include <stddef.h>

enum { FLAGS_MAX_TEXTS = 32 };

/* What a flag sets in the options: bool, const char *, int (the number of the choice), int, double, textList_t. */
typedef enum { FLAG_SWITCH, FLAG_TEXT, FLAG_CHOICE, FLAG_INTEGER, FLAG_REAL, FLAG_LIST } flagKind_t;

typedef struct {
    const char *name;
    flagKind_t kind;
    size_t offset; /* in the options */
    const char
        *value; /* how the help names it; of a FLAG_CHOICE, all choices between bars, in the order of their enum */
    double low, high; /* allowed values of a FLAG_INTEGER or a FLAG_REAL */
    const char *help;
} flag_t;

typedef struct {
    int count;
    const char *texts[FLAGS_MAX_TEXTS];
} textList_t;

/* Reads argv[1] onwards. False, with a failure text, where the line cannot be understood. */
bool flagsParse(const flag_t *flags, int count, void *options, int argc, char **argv);

void flagsPrint(const flag_t *flags, int count);

/* A row of the help, in the columns of the others: its text is wrapped. */
void flagsPrintRow(const char *name, const char *value, const char *help);

#endif
