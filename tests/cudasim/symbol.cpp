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
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace cudasim
{

namespace
{

/* A file in memory, which is only looked at where symbols are. */
class Image
{
  public:
    explicit Image(const char *path)
    {
        int file = open(path, O_RDONLY | O_CLOEXEC);
        struct stat status;
        if (file < 0)
            return;
        if (fstat(file, &status) == 0) {
            void *mapped = mmap(nullptr, size_t(status.st_size), PROT_READ, MAP_PRIVATE, file, 0);
            if (mapped != MAP_FAILED)
                data = static_cast<const char *>(mapped), size = size_t(status.st_size);
        }
        close(file);
    }
    ~Image()
    {
        if (data)
            munmap(const_cast<char *>(data), size);
    }
    bool isElf() const
    {
        return size > sizeof(Elf64_Ehdr) && memcmp(data, ELFMAG, SELFMAG) == 0;
    }
    template <typename T> const T *at(size_t offset) const
    {
        return reinterpret_cast<const T *>(data + offset);
    }

  private:
    const char *data = nullptr;
    size_t size = 0;
};

/* The mangled name of the function at an address, given where the image was loaded; empty if there is none. */
std::string nameAt(const Image &image, uint64_t address, uint64_t base)
{
    if (!image.isElf())
        return {};
    const auto *header = image.at<Elf64_Ehdr>(0);
    if (header->e_type == ET_DYN)
        address -= base;
    const auto *sections = image.at<Elf64_Shdr>(header->e_shoff);
    for (int i = 0; i < header->e_shnum; i++) {
        if (sections[i].sh_type != SHT_SYMTAB)
            continue;
        const auto *symbols = image.at<Elf64_Sym>(sections[i].sh_offset);
        const char *names = image.at<char>(sections[sections[i].sh_link].sh_offset);
        for (size_t k = 0; k < sections[i].sh_size / sizeof *symbols; k++)
            if (symbols[k].st_value == address && ELF64_ST_TYPE(symbols[k].st_info) == STT_FUNC)
                return names + symbols[k].st_name;
    }
    return {};
}

/* Without the return type that templates carry and without the parameter list. */
std::string demangle(const std::string &name)
{
    int status = 0;
    char *text = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
    if (status != 0)
        return name;
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

std::string functionName(const void *function)
{
    Dl_info info;
    if (!dladdr(function, &info))
        return "?";
    auto address = reinterpret_cast<uint64_t>(function), base = reinterpret_cast<uint64_t>(info.dli_fbase);
    std::string name = nameAt(Image(info.dli_fname), address, base);
    if (name.empty())
        name = nameAt(Image("/proc/self/exe"), address, base); /* dladdr gives a program's argv[0] */
    if (name.empty() && info.dli_sname)
        name = info.dli_sname;
    return name.empty() ? "?" : demangle(name);
}

} // namespace cudasim
