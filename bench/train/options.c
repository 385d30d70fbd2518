/* options.c: one table of flags, from which the command line is read and the help is printed. */
#include "options.h"

#include "failure.h"
#include "ranks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AT(member) offsetof(options_t, member)

static const flag_t flags[] = {
    {"--model", FLAG_CHOICE, AT(model), "softmax|mlp|cnn|logreg|linreg", 0, 0, "default mlp"},
    {"--data", FLAG_TEXT, AT(data), "NAME|DIR|FILE", 0, 0,
     "fashion-mnist (default), mnist, or a directory of idx files; for rows, a LIBSVM file, gzipped or not"},
    {"--data-dir", FLAG_TEXT, AT(dataDir), "DIR", 0, 0, "where the files of a named data set are"},
    {"--test", FLAG_TEXT, AT(test), "FILE", 0, 0, "rows to test on, default the training rows"},
    {"--hidden", FLAG_INTEGER, AT(hidden), "N", 1, 65536, "hidden units of a layer of the mlp, default 256"},
    {"--depth", FLAG_INTEGER, AT(depth), "N", 1, OPTIONS_MAX_DEPTH, "hidden layers of the mlp, default 1"},
    {"--l2", FLAG_REAL, AT(l2), "X", 0, 1e6, "logreg's loss has X/2 times the squared norm, default 0.001"},
    {"--recipe", FLAG_TEXT, AT(recipe), "R", 0, 0, "how the gradient travels, default dense"},
    {"--compare", FLAG_LIST, AT(compare), "R1 R2 ...", 0, 0,
     "train once for each recipe, from the same start, and draw one plot"},
    {"--ranks", FLAG_INTEGER, AT(ranks), "N", 1, 1024, "default 4; under mpirun, mpirun's number"},
    {"--transport", FLAG_CHOICE, AT(transport), "threads|mpi", 0, 0, "default threads; under mpirun, mpi"},
    {"--epochs", FLAG_INTEGER, AT(epochs), "N", 1, 100000, "default 10"},
    {"--batch", FLAG_INTEGER, AT(batch), "N", 0, 65536,
     "items of one rank in one step, default 64; 0: the rank's whole share, the same at each step"},
    {"--lr", FLAG_REAL, AT(rate), "X", 1e-9, 1e6, "learning rate, default 0.2"},
    {"--optimizer", FLAG_CHOICE, AT(optimizer), "momentum|amsgrad|adamw", 0, 0,
     "default momentum; the others: try --lr 0.001"},
    {"--momentum", FLAG_REAL, AT(momentum), "X", 0, 0.9999, "of the optimizer of this name, default 0"},
    {"--dtype", FLAG_CHOICE, AT(dtype), "f32|bf16|f16|f64", 0, 0,
     "of the gradient handed over, default f32; f64, for rows: of the parameters, too"},
    {"--seed", FLAG_INTEGER, AT(seed), "N", 0, 2147483647, "of start, shuffling and recipes, default 1"},
    {"--start", FLAG_TEXT, AT(start), "FILE", 0, 0,
     "the first parameters, as they lie in memory; default drawn from the seed"},
    {"--device", FLAG_CHOICE, AT(device), "cpu|cuda", 0, 0,
     "default cpu; cuda: softmax and mlp, ranks over NCCL with a GPU each"},
    {"--overlap", FLAG_SWITCH, AT(overlap), "", 0, 0,
     "train twice with one reducer a layer: exchange after the backward pass, and during it; compare the times"},
    {"--json", FLAG_TEXT, AT(json), "FILE", 0, 0, "write all figures, a list with one object for each run"},
    {"--plot", FLAG_TEXT, AT(plot), "FILE", 0, 0, "draw loss and accuracy, SVG; with --compare default gs_train.svg"},
    {"--quiet", FLAG_SWITCH, AT(quiet), "", 0, 0, "the table alone"},
    {"--help", FLAG_SWITCH, AT(help), "", 0, 0, "this text"},
};
enum { FLAG_COUNT = sizeof flags / sizeof flags[0] };

static bool settleRecipes(options_t *options)
{
    if (options->recipe && options->compare.count)
        return fail("--recipe: got '%s' beside --compare, expected one of the two", options->recipe);
    if (options->compare.count && !options->plot)
        options->plot = "gs_train.svg";
    if (!options->compare.count)
        options->compare = (textList_t){1, {options->recipe ? options->recipe : "dense"}};
    return true;
}

bool optionsParse(options_t *options, int argc, char **argv)
{
    *options = (options_t){.model = MODEL_MLP,
                           .hidden = 256,
                           .depth = 1,
                           .l2 = 0.001,
                           .transport = ranksUnderMpi() ? TRANSPORT_MPI : TRANSPORT_THREADS,
                           .epochs = 10,
                           .batch = 64,
                           .rate = 0.2,
                           .seed = 1};
    return flagsParse(flags, FLAG_COUNT, options, argc, argv) && settleRecipes(options);
}

void optionsPrintHelp(void)
{
    printf("gs_train: data-parallel training of small models, with the gradient exchanged by gradsieve\n\n"
           "usage: gs_train [flags]\n       mpirun -n N gs_train [flags]\n\n");
    flagsPrint(flags, FLAG_COUNT);
    printf("\nOf images: softmax, mlp (hidden ReLU layers) and cnn (3x3 convolutions of 8 and 16 channels, each with\n"
           "ReLU and 2x2 maximum, then a dense layer; an epoch of Fashion-MNIST takes some seconds on two cores). Of\n"
           "LIBSVM rows, without an intercept: logreg (two classes) and linreg (least squares).\n\n"
           "A recipe is NAME or NAME:key=value,key=value, for example dense, threshold:density=0.01, chunk-topk:k=64\n"
           "or gspar:density=0.05; gradsieve.h lists them all. Loss is the mean over the epoch's training items,\n"
           "accuracy or mean squared error (mse) that over the test items. A megabyte is 10^6 bytes.\n"
           "Exit code: 0 done, 1 failed, 2 a command line that makes no sense, or no device for it.\n");
}
