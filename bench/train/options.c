/* options.c: one table of flags, from which the command line is read and the help is printed. */
#include "options.h"

#include "failure.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum { SWITCH, TEXT, CHOICE, INTEGER, REAL, LIST } kind_t;

typedef struct {
    const char *name;
    kind_t kind;
    size_t offset;     /* in options_t */
    const char *value; /* how the help names it; of a CHOICE, all choices between bars, in the order of their enum */
    double low, high;  /* allowed values of an INTEGER or a REAL */
    const char *help;
} flag_t;

#define AT(member) offsetof(options_t, member)

static const flag_t flags[] = {
    {"--data", TEXT, AT(data), "NAME|DIR", 0, 0, "fashion-mnist (default), mnist, or a directory of idx files"},
    {"--data-dir", TEXT, AT(dataDir), "DIR", 0, 0, "where the files of a named data set are"},
    {"--model", CHOICE, AT(model), "softmax|mlp", 0, 0, "default mlp"},
    {"--hidden", INTEGER, AT(hidden), "N", 1, 65536, "hidden units of the mlp, default 256"},
    {"--recipe", TEXT, AT(recipe), "R", 0, 0, "how the gradient travels, default dense"},
    {"--compare", LIST, AT(compare), "R1 R2 ...", 0, 0,
     "train once for each recipe, from the same start, and draw one plot"},
    {"--ranks", INTEGER, AT(ranks), "N", 1, 1024, "default 4; under mpirun, mpirun's number"},
    {"--transport", CHOICE, AT(transport), "threads|mpi", 0, 0, "default threads; under mpirun, mpi"},
    {"--epochs", INTEGER, AT(epochs), "N", 1, 100000, "default 10"},
    {"--batch", INTEGER, AT(batch), "N", 1, 65536, "images of one rank in one step, default 64"},
    {"--lr", REAL, AT(rate), "X", 1e-9, 1e6, "learning rate, default 0.2"},
    {"--momentum", REAL, AT(momentum), "X", 0, 0.9999, "of the optimizer, default 0"},
    {"--dtype", CHOICE, AT(dtype), "f32|bf16", 0, 0, "of the gradient handed over, default f32"},
    {"--seed", INTEGER, AT(seed), "N", 0, 2147483647, "of start, shuffling and recipes, default 1"},
    {"--json", TEXT, AT(json), "FILE", 0, 0, "write all figures, a list with one object for each run"},
    {"--plot", TEXT, AT(plot), "FILE", 0, 0, "draw loss and accuracy, SVG; with --compare default gs_train.svg"},
    {"--quiet", SWITCH, AT(quiet), "", 0, 0, "the table alone"},
    {"--help", SWITCH, AT(help), "", 0, 0, "this text"},
};
enum { FLAG_COUNT = sizeof flags / sizeof flags[0] };

static const flag_t *findFlag(const char *name)
{
    for (int i = 0; i < FLAG_COUNT; i++)
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

static bool addRecipe(recipeList_t *list, const char *recipe)
{
    if (list->count == OPTIONS_MAX_RECIPES)
        return fail("--compare: got more than %d recipes", OPTIONS_MAX_RECIPES);
    list->recipes[list->count++] = recipe;
    return true;
}

static bool parseValue(const flag_t *flag, const char *text, void *slot)
{
    switch (flag->kind) {
    case CHOICE: return parseChoice(flag, text, slot);
    case INTEGER: return parseInteger(flag, text, slot);
    case REAL: return parseReal(flag, text, slot);
    case LIST: return addRecipe(slot, text);
    default: *(const char **)slot = text; return true;
    }
}

static bool isFlag(const char *argument)
{
    return strncmp(argument, "--", 2) == 0;
}

/* Reads the flag at argv[*at], with its values, and moves *at behind them. */
static bool parseFlag(options_t *options, int argc, char **argv, int *at)
{
    const flag_t *flag = findFlag(argv[*at]);
    if (!flag)
        return fail("%s: no such flag; --help lists them", argv[*at]);
    void *slot = (char *)options + flag->offset;
    ++*at;
    if (flag->kind == SWITCH) {
        *(bool *)slot = true;
        return true;
    }
    if (*at == argc || isFlag(argv[*at]))
        return fail("%s: got nothing, expected %s", flag->name, flag->value);
    do {
        if (!parseValue(flag, argv[(*at)++], slot))
            return false;
    } while (flag->kind == LIST && *at < argc && !isFlag(argv[*at]));
    return true;
}

/* What Open MPI, MPICH and Slurm's MPI plugins tell each process they start. */
static bool startedByMpi(void)
{
    return getenv("OMPI_COMM_WORLD_SIZE") || getenv("PMI_SIZE") || getenv("PMIX_RANK");
}

static bool settleRecipes(options_t *options)
{
    if (options->recipe && options->compare.count)
        return fail("--recipe: got '%s' beside --compare, expected one of the two", options->recipe);
    if (options->compare.count && !options->plot)
        options->plot = "gs_train.svg";
    if (options->compare.count)
        return true;
    return addRecipe(&options->compare, options->recipe ? options->recipe : "dense");
}

bool optionsParse(options_t *options, int argc, char **argv)
{
    *options = (options_t){.data = "fashion-mnist",
                           .model = MODEL_MLP,
                           .hidden = 256,
                           .transport = startedByMpi() ? TRANSPORT_MPI : TRANSPORT_THREADS,
                           .epochs = 10,
                           .batch = 64,
                           .rate = 0.2,
                           .seed = 1};
    for (int at = 1; at < argc;)
        if (!parseFlag(options, argc, argv, &at))
            return false;
    return settleRecipes(options);
}

void optionsPrintHelp(void)
{
    printf("gs_train: data-parallel training on images, with the gradient exchanged by gradsieve\n\n"
           "usage: gs_train [flags]\n       mpirun -n N gs_train [flags]\n\n");
    for (int i = 0; i < FLAG_COUNT; i++)
        printf("  %-11s %-12s %s\n", flags[i].name, flags[i].value, flags[i].help);
    printf("\nA recipe is NAME or NAME:key=value,key=value, for example dense, threshold:density=0.01,\n"
           "chunk-topk:k=64 or gspar:density=0.05; gradsieve.h lists them all. Loss is the mean over the\n"
           "epoch's training images, accuracy that on the test images. A megabyte is 10^6 bytes.\n"
           "Exit code: 0 done, 1 failed, 2 a command line that makes no sense.\n");
}

const char *optionsModelName(const options_t *options)
{
    return options->model == MODEL_SOFTMAX ? "softmax" : "mlp";
}
