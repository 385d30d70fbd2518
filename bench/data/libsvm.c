/* libsvm.c: reads a file whole, then its lines. Empty lines and what follows a # are passed over. */
#include "libsvm.h"

#include "train/failure.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { FIRST_ROOM = 1 << 16, MOST_READ = 1 << 30 };

typedef struct {
    const char *path;
    const char *at; /* ends with a NUL */
    int line;
} reader_t;

static bool readAll(gzFile file, char **text, size_t *length, const char *path)
{
    size_t room = FIRST_ROOM;
    for (*length = 0;;) {
        char *larger = realloc(*text, room);
        if (!larger)
            return fail("%s: no memory for %zu bytes", path, room);
        *text = larger;
        size_t left = room - 1 - *length;
        int got = gzread(file, *text + *length, left < MOST_READ ? (unsigned)left : MOST_READ);
        if (got < 0)
            return fail("%s: cannot be read: %s", path, gzerror(file, &got));
        if (got == 0)
            break;
        *length += (size_t)got;
        if (*length + 1 == room)
            room *= 2;
    }
    (*text)[*length] = '\0';
    return true;
}

static bool readText(char **text, size_t *length, const char *path)
{
    gzFile file = gzopen(path, "rb");
    if (!file)
        return fail("%s: cannot be opened: %s", path, strerror(errno));
    bool done = readAll(file, text, length, path);
    bool whole = gzclose(file) == Z_OK;
    return done && (whole || fail("%s: its gzip stream is truncated", path));
}

static size_t countBytes(const char *text, size_t length, char wanted)
{
    size_t count = 0;
    for (size_t i = 0; i < length; i++)
        count += text[i] == wanted;
    return count;
}

/* Every row has a line, and every value a colon. */
static bool makeRoom(libsvm_t *set, const char *text, size_t length, const char *path)
{
    size_t rows = countBytes(text, length, '\n') + 1, values = countBytes(text, length, ':');
    if (rows > INT_MAX)
        return fail("%s: %zu lines, expected %d at most", path, rows, INT_MAX);
    set->rowStart = malloc((rows + 1) * sizeof *set->rowStart);
    set->label = malloc(rows * sizeof *set->label);
    set->column = malloc((values + 1) * sizeof *set->column);
    set->value = malloc((values + 1) * sizeof *set->value);
    return (set->rowStart && set->label && set->column && set->value) ||
           fail("%s: no memory for %zu rows of %zu values", path, rows, values);
}

static bool endsWord(char c)
{
    return c == '\0' || strchr(" \t\r\n#", c);
}

/* To the next word of the line; false where the line ends. */
static bool findWord(reader_t *reader)
{
    reader->at += strspn(reader->at, " \t\r");
    if (*reader->at == '#')
        reader->at += strcspn(reader->at, "\n");
    return *reader->at != '\n' && *reader->at != '\0';
}

static bool unexpected(const reader_t *reader, const char *expected)
{
    int length = (int)strcspn(reader->at, " \t\r\n#");
    return fail("%s: line %d: got '%.*s', expected %s", reader->path, reader->line, length < 40 ? length : 40,
                reader->at, expected);
}

/* strtod would pass over the end of the line for a number on the next one. */
static bool parseNumber(reader_t *reader, double *number)
{
    char *end = (char *)reader->at;
    if (!endsWord(*reader->at))
        *number = strtod(reader->at, &end);
    if (end == reader->at || !endsWord(*end) || !isfinite(*number))
        return unexpected(reader, "a finite number");
    reader->at = end;
    return true;
}

static bool parseEntry(reader_t *reader, int before, int *column, double *value)
{
    char *end;
    errno = 0;
    long index = strtol(reader->at, &end, 10);
    if (end == reader->at || *end != ':')
        return unexpected(reader, "index:value");
    if (index < 1 || index > INT_MAX || errno)
        return unexpected(reader, "an index from 1 to 2147483647");
    if (index - 1 <= before)
        return unexpected(reader, "an index larger than the one before it");
    *column = (int)(index - 1);
    reader->at = end + 1;
    return parseNumber(reader, value);
}

static bool parseRow(reader_t *reader, libsvm_t *set)
{
    size_t next = set->rowStart[set->rows];
    int column = -1;
    if (!parseNumber(reader, &set->label[set->rows]))
        return false;
    for (; findWord(reader); next++) {
        if (!parseEntry(reader, column, &set->column[next], &set->value[next]))
            return false;
        column = set->column[next];
    }
    set->columns = column < set->columns ? set->columns : column + 1;
    set->rowStart[++set->rows] = next;
    return true;
}

static bool parseText(libsvm_t *set, const char *text, size_t length, const char *path)
{
    reader_t reader = {path, text, 1};
    set->rowStart[0] = 0;
    for (const char *end = text + length;; reader.at++, reader.line++) {
        if (findWord(&reader) && !parseRow(&reader, set))
            return false;
        if (reader.at == end)
            break;
        if (*reader.at == '\0')
            return fail("%s: line %d: a NUL byte, expected text", path, reader.line);
    }
    return set->columns > 0 || fail("%s: no values there, expected lines `label index:value ...`", path);
}

bool libsvmRead(libsvm_t *set, const char *path)
{
    char *text = NULL;
    size_t length = 0;
    *set = (libsvm_t){0};
    bool done =
        readText(&text, &length, path) && makeRoom(set, text, length, path) && parseText(set, text, length, path);
    free(text);
    return done;
}

void libsvmFree(libsvm_t *set)
{
    free(set->rowStart);
    free(set->column);
    free(set->value);
    free(set->label);
    *set = (libsvm_t){0};
}
