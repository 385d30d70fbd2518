/* flags.c: reads a command line by a table of flags, and prints the table as help. */
#include "flags.h"

#include "failure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HELP_BEGIN = 30, HELP_WIDTH = 78 }; /* columns of the help's texts */

static const flag_t *findFlag(const flag_t *flags, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (strcmp(flags[i].name, name) == 0)
            return &flags[i];
    return NULL;
}

static bool parseChoice(const flag_t *flag, const char *text, int *slot)
{
    size_t length = strlen(text);
    const char *choice = flag->value;
    for (int index = 0; choice; index++) {
        size_t end = strcspn(choice, "|");
        if (end == length && strncmp(choice, text, end) == 0) {
            *slot = index;
            return true;
        }
        choice = choice[end] ? choice + end + 1 : NULL;
    }
    return fail("%s: got '%s', expected one of %s", flag->name, text, flag->value);
}

static bool parseInteger(const flag_t *flag, const char *text, int *slot)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (end == text || *end || (double)value < flag->low || (double)value > flag->high)
        return fail("%s: got '%s', expected a whole number from %.0f to %.0f", flag->name, text, flag->low, flag->high);
    *slot = (int)value;
    return true;
}

static bool parseReal(const flag_t *flag, const char *text, double *slot)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= flag->low && value <= flag->high))
        return fail("%s: got '%s', expected a number from %g to %g", flag->name, text, flag->low, flag->high);
    *slot = value;
    return true;
}

static bool addText(const flag_t *flag, const char *text, textList_t *list)
{
    if (list->count == FLAGS_MAX_TEXTS)
        return fail("%s: got more than %d values", flag->name, FLAGS_MAX_TEXTS);
    list->texts[list->count++] = text;
    return true;
}

static bool parseValue(const flag_t *flag, const char *text, void *slot)
{
    switch (flag->kind) {
    case FLAG_CHOICE: return parseChoice(flag, text, slot);
    case FLAG_INTEGER: return parseInteger(flag, text, slot);
    case FLAG_REAL: return parseReal(flag, text, slot);
    case FLAG_LIST: return addText(flag, text, slot);
    default: *(const char **)slot = text; return true;
    }
}

static bool isFlag(const char *argument)
{
    return strncmp(argument, "--", 2) == 0;
}

/* Reads the flag at argv[*at], with its values, and moves *at behind them. */
static bool parseFlag(const flag_t *flags, int count, void *options, int argc, char **argv, int *at)
{
    const flag_t *flag = findFlag(flags, count, argv[*at]);
    if (!flag)
        return fail("%s: no such flag; --help lists them", argv[*at]);
    void *slot = (char *)options + flag->offset;
    ++*at;
    if (flag->kind == FLAG_SWITCH) {
        *(bool *)slot = true;
        return true;
    }
    if (*at == argc || isFlag(argv[*at]))
        return fail("%s: got nothing, expected %s", flag->name, flag->value);
    do {
        if (!parseValue(flag, argv[(*at)++], slot))
            return false;
    } while (flag->kind == FLAG_LIST && *at < argc && !isFlag(argv[*at]));
    return true;
}

bool flagsParse(const flag_t *flags, int count, void *options, int argc, char **argv)
{
    for (int at = 1; at < argc;)
        if (!parseFlag(flags, count, options, argc, argv, &at))
            return false;
    return true;
}

/* Bytes of the first line: as many whole words as fit, at least one. */
static int lineLength(const char *text)
{
    int length = (int)strcspn(text, " ");
    while (text[length]) {
        int next = length + 1 + (int)strcspn(text + length + 1, " ");
        if (next > HELP_WIDTH)
            break;
        length = next;
    }
    return length;
}

static void printWrapped(const char *text)
{
    for (;;) {
        int length = lineLength(text);
        printf("%.*s\n", length, text);
        if (!text[length])
            return;
        text += length + 1;
        printf("%*s", HELP_BEGIN, "");
    }
}

void flagsPrintRow(const char *name, const char *value, const char *help)
{
    int column = printf("  %s %s", name, value);
    if (column > HELP_BEGIN - 2) {
        printf("\n");
        column = 0;
    }
    printf("%*s", HELP_BEGIN - column, "");
    printWrapped(help);
}

void flagsPrint(const flag_t *flags, int count)
{
    for (int i = 0; i < count; i++)
        flagsPrintRow(flags[i].name, flags[i].value, flags[i].help);
}
