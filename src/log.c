/* The log: one line to stderr a message, and only where GS_DEBUG asks for its level. */
#include "core.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static gsLogLevel wanted(void)
{
    const char *text = gsParamText("GS_DEBUG", "");
    if (strcmp(text, "TRACE") == 0)
        return GS_LOG_TRACE;
    if (strcmp(text, "INFO") == 0)
        return GS_LOG_INFO;
    return strcmp(text, "WARN") == 0 ? GS_LOG_WARN : GS_LOG_NONE;
}

void gsLog(gsLogLevel level, const char *format, ...)
{
    static const char *const labels[] = {"", "WARN", "INFO", "TRACE"};
    char line[640];
    va_list arguments;
    if (level > wanted())
        return;
    int at = snprintf(line, sizeof line, "gradsieve [%d] %s ", (int)getpid(), labels[level]);
    va_start(arguments, format);
    vsnprintf(line + at, sizeof line - (size_t)at, format, arguments);
    va_end(arguments);
    fprintf(stderr, "%s\n", line);
}
