/* Finds a function's name in the symbol table of the file it was loaded from.
 *
 * dladdr alone knows only exported names, and kernels are mostly static or in an unnamed namespace.
 */
#include "symbol.h"

#include <cstdlib>
#include <cstring>
#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>
#include <fstream>
#include <iterator>
#include <vector>

namespace cudasim {

namespace {

std::vector<char> readFile(const char *path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

/* The mangled name of the symbol at `offset` in an ELF image, or nothing. */
std::string nameAt(const std::vector<char> &image, uint64_t offset) {
    if (image.size() < sizeof(Elf64_Ehdr) || memcmp(image.data(), ELFMAG, SELFMAG)) return {};
    const auto *header = reinterpret_cast<const Elf64_Ehdr *>(image.data());
    const auto *sections = reinterpret_cast<const Elf64_Shdr *>(image.data() + header->e_shoff);
    for (int i = 0; i < header->e_shnum; i++) {
        if (sections[i].sh_type != SHT_SYMTAB) continue;
        const auto *symbols = reinterpret_cast<const Elf64_Sym *>(image.data() + sections[i].sh_offset);
        const char *names = image.data() + sections[sections[i].sh_link].sh_offset;
        for (size_t k = 0; k < sections[i].sh_size / sizeof *symbols; k++)
            if (symbols[k].st_value == offset && ELF64_ST_TYPE(symbols[k].st_info) == STT_FUNC)
                return names + symbols[k].st_name;
    }
    return {};
}

/* Without the return type that templates carry and without the parameter list. */
std::string demangle(const std::string &name) {
    int status = 0;
    char *text = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
    if (status != 0) return name;
    std::string result = text;
    free(text);
    int depth = 0;
    for (size_t i = result.size(); i-- > 0;) {
        depth += (result[i] == ')') - (result[i] == '(');
        if (depth == 0) {
            result.erase(i);
            break;
        }
    }
    return result.compare(0, 5, "void ") == 0 ? result.substr(5) : result;
}

} // namespace

std::string functionName(const void *function) {
    Dl_info info;
    if (!dladdr(function, &info)) return "?";
    std::vector<char> image = readFile(info.dli_fname);
    if (image.empty()) image = readFile("/proc/self/exe"); /* dladdr gives the program's argv[0] */
    auto address = reinterpret_cast<uint64_t>(function);
    std::string name = nameAt(image, address - reinterpret_cast<uint64_t>(info.dli_fbase));
    if (name.empty()) name = nameAt(image, address); /* a program linked at a fixed address */
    if (name.empty()) return info.dli_sname ? demangle(info.dli_sname) : "?";
    return demangle(name);
}

} // namespace cudasim
