/* Real gradients from .npy files in the folder GS_TEST_DATA: one row a rank. */
#ifndef GS_TESTS_NPY_H
#define GS_TESTS_NPY_H

#include "ranks.h"
#include "record.h"

#include <cstdio>
#include <cstring>
#include <fstream>

namespace gst
{

/* A two-dimensional float32 .npy file, C order: one row a rank. */
inline Gradients readNpy(const std::string &path)
{
    std::ifstream file(path, std::ios::binary);
    char magic[10] = {};
    file.read(magic, 10);
    if (!file || std::memcmp(magic, "\x93NUMPY\1\0", 8) != 0)
        return {};
    uint16_t headerBytes = readAt<uint16_t>(reinterpret_cast<const uint8_t *>(magic), 8);
    std::string header(headerBytes, ' ');
    file.read(header.data(), headerBytes);
    unsigned long rows = 0, columns = 0;
    size_t shape = header.find("'shape': (");
    if (header.find("<f4") == std::string::npos || shape == std::string::npos ||
        std::sscanf(header.c_str() + shape, "'shape': (%lu, %lu)", &rows, &columns) != 2)
        return {};
    Gradients gradients(rows, std::vector<float>(columns));
    for (std::vector<float> &row : gradients)
        file.read(reinterpret_cast<char *>(row.data()), static_cast<std::streamsize>(columns * 4));
    return file ? gradients : Gradients{};
}

/* Why there are none, or "". */
inline std::string readTestGradients(const std::string &name, Gradients &gradients)
{
    const char *folder = std::getenv("GS_TEST_DATA");
    if (!folder)
        return "GS_TEST_DATA is not set: no folder to read " + name + " from";
    gradients = readNpy(std::string(folder) + "/" + name);
    return gradients.empty() ? "no float32 matrix in " + std::string(folder) + "/" + name : "";
}

/* What the elements are once they have been of that type. */
inline Gradients roundedTo(gsDataType_t type, Gradients gradients)
{
    for (std::vector<float> &row : gradients)
        for (float &x : row)
            x = type == GS_BFLOAT16 ? bf16Bits(toBf16Bits(x)) : x;
    return gradients;
}

} // namespace gst

#endif
