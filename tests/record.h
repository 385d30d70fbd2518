/* An independent reader of records, written from their description byte by byte; shares no line with the library. */
#ifndef GS_TESTS_RECORD_H
#define GS_TESTS_RECORD_H

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace gst
{

template <typename T> T readAt(const uint8_t *bytes, uint64_t at)
{
    T x;
    std::memcpy(&x, bytes + at, sizeof x);
    return x;
}

template <typename T> void writeAt(uint8_t *bytes, uint64_t at, T x)
{
    std::memcpy(bytes + at, &x, sizeof x);
}

enum Layout { globalLayout = 0, chunkedLayout = 1, maskLayout = 2 };
enum Coding { codingF32 = 0, codingBf16 = 1, codingShared = 2 };
enum Flag { flagNonFinite = 2, flagThinned = 4, flagOverflowed = 16 };

struct Coordinate {
    uint64_t index;
    float value;
    int group; /* 1: sign and shared magnitude */
};

struct Record {
    uint32_t rank = 0, flags = 0, layout = 0, coding = 0, aux = 0;
    uint64_t step = 0, count = 0, kept = 0, configHash = 0, bytes = 0;
    float scale = 0;
    uint64_t indexBytes = 0, valueBytes = 0;
    std::vector<Coordinate> coordinates; /* in index order */
    std::string problem;                 /* empty: a good record */
};

/* The checksum by its definition: over all 64-bit words but number 7, in any order. */
inline uint64_t recordChecksum(const uint8_t *record, uint64_t bytes)
{
    uint64_t configHash = readAt<uint64_t>(record, 40), step = readAt<uint64_t>(record, 16);
    uint64_t rank = readAt<uint32_t>(record, 8);
    uint64_t key = configHash ^ (step * 0xD1342543DE82EF95ull) ^ (rank * 4294967296ull + 0x67736563ull);
    uint64_t sum = 0;
    for (uint64_t j = bytes / 8; j-- > 0;) {
        uint64_t w = readAt<uint64_t>(record, 8 * j), x = w ^ (key + j * 0x9E3779B97F4A7C15ull);
        if (j != 7)
            sum += (x % 4294967296ull) * (x / 4294967296ull) + w;
    }
    return sum;
}

/* Walks over a record's sections; complains about padding that is not zero. */
class SectionReader
{
  public:
    SectionReader(const uint8_t *record, uint64_t bytes, std::string &problem)
        : record_(record), bytes_(bytes), problem_(problem)
    {
    }
    /* The next section's bytes; NULL where the record has too few. */
    const uint8_t *take(uint64_t bytes)
    {
        uint64_t begin = at_, end = (at_ + bytes + 15) / 16 * 16;
        if (end > bytes_) {
            problem_ = "a section ends beyond the record";
            return nullptr;
        }
        for (uint64_t i = begin + bytes; i < end; i++)
            if (record_[i] != 0)
                problem_ = "padding is not zero at byte " + std::to_string(i);
        at_ = end;
        return record_ + begin;
    }
    uint64_t at() const
    {
        return at_;
    }

  private:
    const uint8_t *record_;
    uint64_t bytes_;
    std::string &problem_;
    uint64_t at_ = 64 + 16; /* header, one segment */
};

/* One index: bits 12 j .. 12 j + 11 of the section, bit by bit. */
inline uint32_t readTwelveBits(const uint8_t *section, uint64_t j)
{
    uint32_t x = 0;
    for (uint64_t bit = 0; bit < 12; bit++)
        x |= static_cast<uint32_t>(section[(12 * j + bit) / 8] >> ((12 * j + bit) % 8) & 1) << bit;
    return x;
}

inline float readValue(const Record &r, int group, const uint8_t *values, uint64_t slot)
{
    uint32_t wide;
    float x;
    if (r.coding == codingShared && group == 1)
        return values[slot / 8] >> (slot % 8) & 1 ? -r.scale : r.scale;
    if (r.coding == codingBf16) {
        wide = static_cast<uint32_t>(readAt<uint16_t>(values, 2 * slot)) << 16;
        std::memcpy(&x, &wide, 4);
        return x;
    }
    return readAt<float>(values, 4 * slot);
}

inline uint64_t valueSectionBytes(const Record &r, int group, uint64_t slots)
{
    if (r.coding == codingShared && group == 1)
        return (slots + 7) / 8;
    return slots * (r.coding == codingBf16 ? 2 : 4);
}

/* Slots of block b of a group: [first, next). */
struct SlotRange {
    uint64_t first, next;
};

inline SlotRange slotsOfBlock(const Record &r, const uint8_t *table, uint64_t block, uint64_t slots)
{
    if (r.layout == globalLayout)
        return {readAt<uint32_t>(table, 4 * block), readAt<uint32_t>(table, 4 * block + 4)};
    return {std::min(block * r.aux, slots), std::min((block + 1) * r.aux, slots)};
}

inline void readGroup(Record &r, int group, uint64_t slots, SectionReader &sections)
{
    uint64_t blocks = (r.count + 4095) / 4096;
    const uint8_t *table = r.layout == globalLayout ? sections.take(4 * (blocks + 1)) : nullptr;
    r.indexBytes += r.layout == globalLayout ? 4 * (blocks + 1) : 0;
    const uint8_t *values = sections.take(valueSectionBytes(r, group, slots));
    const uint8_t *indices = sections.take((12 * slots + 7) / 8);
    r.valueBytes += valueSectionBytes(r, group, slots);
    r.indexBytes += (12 * slots + 7) / 8;
    if (!r.problem.empty())
        return;
    if (slots % 2 && indices[12 * slots / 8] >> 4 != 0)
        r.problem = "the last index's upper half is not zero";
    if (table && readAt<uint32_t>(table, 4 * blocks) != slots)
        r.problem = "the block table does not end at the number of slots";
    for (uint64_t b = 0; b < blocks && r.problem.empty(); b++) {
        SlotRange range = slotsOfBlock(r, table, b, slots);
        if (range.first > range.next || range.next > slots) {
            r.problem = "the block table is not ascending";
            return;
        }
        for (uint64_t slot = range.first; slot < range.next; slot++) {
            uint64_t index = b * 4096 + readTwelveBits(indices, slot);
            bool ascending = slot == range.first || r.coordinates.back().index < index;
            if (index >= r.count || !ascending) {
                r.problem = "bad index in slot " + std::to_string(slot);
                return;
            }
            r.coordinates.push_back({index, readValue(r, group, values, slot), group});
        }
    }
}

/* `mask` lists the kept coordinates where no index travels. */
inline Record readRecord(const uint8_t *record, uint64_t room, const std::vector<uint64_t> &mask = {})
{
    Record r;
    if (room < 80 || std::memcmp(record, "GSR1", 4) != 0 || readAt<uint16_t>(record, 4) != 1) {
        r.problem = "no record of version 1";
        return r;
    }
    r.flags = readAt<uint16_t>(record, 6);
    r.rank = readAt<uint32_t>(record, 8);
    r.layout = record[14];
    r.coding = record[15];
    r.step = readAt<uint64_t>(record, 16);
    r.count = readAt<uint64_t>(record, 24);
    r.kept = readAt<uint64_t>(record, 32);
    r.configHash = readAt<uint64_t>(record, 40);
    r.bytes = readAt<uint64_t>(record, 48);
    r.aux = readAt<uint32_t>(record, 72);
    r.scale = readAt<float>(record, 76);
    if (readAt<uint16_t>(record, 12) != 1 || readAt<uint64_t>(record, 64) != r.count)
        r.problem = "not one segment of all elements";
    else if (r.bytes > room || r.bytes % 16 != 0)
        r.problem = "bad length";
    else if (readAt<uint64_t>(record, 56) != recordChecksum(record, r.bytes))
        r.problem = "bad checksum";
    if (!r.problem.empty())
        return r;
    SectionReader sections(record, r.bytes, r.problem);
    if (r.layout == maskLayout) {
        const uint8_t *values = sections.take(valueSectionBytes(r, 0, r.kept));
        r.valueBytes = valueSectionBytes(r, 0, r.kept);
        for (uint64_t slot = 0; slot < r.kept && slot < mask.size() && r.problem.empty(); slot++)
            r.coordinates.push_back({mask[slot], readValue(r, 0, values, slot), 0});
    } else {
        uint64_t first = r.coding == codingShared ? r.aux : r.kept;
        readGroup(r, 0, first, sections);
        if (r.coding == codingShared && r.problem.empty())
            readGroup(r, 1, r.kept - first, sections);
        std::sort(r.coordinates.begin(), r.coordinates.end(),
                  [](const Coordinate &a, const Coordinate &b) { return a.index < b.index; });
    }
    if (r.problem.empty() && sections.at() != r.bytes)
        r.problem = "bytes are left behind the sections";
    return r;
}

} // namespace gst
#endif
