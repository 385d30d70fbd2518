/* What nvtx_tool.cpp, a profiler of the tests' own, has seen: NVTX's push and pop ranges, with their payloads decoded. */
#ifndef GS_TESTS_NVTX_TOOL_H
#define GS_TESTS_NVTX_TOOL_H

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace gst
{

/* An entry of a payload, by its type: text of strings and enums, a number of all others. */
struct PayloadValue {
    std::string text;
    double number = 0;
};

struct Range {
    std::string domain, name;
    bool registered = false; /* the name is a registered string */
    int depth = 0;           /* ranges around it, on its thread */
    bool open = true;
    std::string schema; /* of the payload; empty: none */
    std::map<std::string, PayloadValue> payload;
};

/* How often what a program registers has been registered. */
struct Registrations {
    int domains = 0, schemas = 0, enums = 0;
};

/* All ranges that have begun since the last call, by thread, in the order of their beginnings. */
std::vector<Range> takeRanges();
Registrations registrations();

} // namespace gst

#endif
