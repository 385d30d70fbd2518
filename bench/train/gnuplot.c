/* gnuplot.c: saves a script, has gnuplot run it, and removes it again. */
#include "gnuplot.h"

#include "failure.h"

#include <errno.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

void gnuplotQuoted(FILE *file, const char *text)
{
    putc('\'', file);
    for (; *text; text++) {
        putc(*text, file);
        if (*text == '\'')
            putc('\'', file);
    }
    putc('\'', file);
}

static const char *const colours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                      "#e69f00", "#56b4e9", "#000000", "#8c564b"};
enum { COLOUR_COUNT = sizeof colours / sizeof colours[0] };

void gnuplotLine(FILE *file, int index)
{
    fprintf(file, "lc rgb '%s' dt %d", colours[index % COLOUR_COUNT], 1 + index / COLOUR_COUNT);
}

void gnuplotStart(FILE *file, const char *path, int width, int height)
{
    fprintf(file, "set terminal svg size %d,%d dynamic noenhanced font 'sans-serif,14' background 'white'\nset output ",
            width, height);
    gnuplotQuoted(file, path);
    fputs("\nset datafile missing 'nan'\nset grid lc rgb '#dddddd'\nset tics nomirror\nset border 3\n", file);
}

static bool saveScript(const char *script, const char *path, gnuplotWriter_t writeScript, const void *context)
{
    FILE *file = fopen(script, "w");
    if (!file)
        return fail("--plot: %s: %s", script, strerror(errno));
    writeScript(file, path, context);
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

bool gnuplotDraw(const char *path, gnuplotWriter_t writeScript, const void *context)
{
    char script[4096];
    if (snprintf(script, sizeof script, "%s.gnuplot", path) >= (int)sizeof script)
        return fail("--plot: got a path of more than %zu bytes", sizeof script);
    if (!saveScript(script, path, writeScript, context) || !runGnuplot(script))
        return false;
    remove(script);
    return true;
}
