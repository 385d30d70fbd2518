/* failure.c: the text of this thread's last failure. */
#include "failure.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char text[FAILURE_LENGTH];

bool fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return false;
}

const char *failureText(void)
{
    return text;
}
