/* An independent reader of records, written from their description byte by byte; shares no line with the library. */
#ifndef GS_TESTS_RECORD_H
#define GS_TESTS_RECORD_H

#include <algorithm>
#include <cmath>
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

enum Layout { globalLayout = 0, chunkedLayout = 1, maskLayout = 2, allLayout = 3, rowsLayout = 4 };
enum Coding {
    codingF32 = 0,
    codingBf16 = 1,
    codingShared = 2,
    codingF64 = 3,
    codingF16 = 4,
    codingSign = 5,
    codingTernary = 6,
    codingLevels = 7,
    codingNatural = 8,
    codingGrid = 9,
    codingBook = 10
};
enum Flag {
    flagSkip = 1,
    flagNonFinite = 2,
    flagThinned = 4,
    flagOverflowed = 16,
    flagAverage = 32,
    flagReferences = 64,
    flagMap = 128
};

struct Coordinate {
    uint64_t index;
    double value;
    int group; /* 1: sign and shared magnitude */
};

/* What a reader has to be told, because it does not travel. */
struct Reading {
    std::vector<uint64_t> mask = {}; /* the kept coordinates where no index travels */
    uint32_t levels = 127;           /* s of the level coding, and of the grid's */
};

/* A block of the gradient, or of a list's tensor. */
struct Block {
    uint64_t first; /* its first element's number, the tensors one behind the other */
    uint64_t length;
    bool whole;     /* of a tensor that travels whole */
    uint64_t place; /* its first code's, where all coordinates have one */
};

struct Record {
    uint32_t rank = 0, flags = 0, layout = 0, coding = 0, aux = 0;
    uint64_t step = 0, count = 0, kept = 0, configHash = 0, bytes = 0;
    float scale = 0;
    uint64_t indexBytes = 0, valueBytes = 0;
    std::vector<float> scales;        /* of the blocks; of the codebook four each */
    std::vector<double> coefficients; /* of the references */
    std::vector<Block> blocks;
    uint64_t places = 0; /* codes where all coordinates have one */
    uint32_t tensors = 0, wholeCoding = 0;
    std::vector<Coordinate> whole;       /* of tensors that travel whole, in order */
    std::vector<Coordinate> coordinates; /* the others, in index order */
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
    SectionReader(const uint8_t *record, uint64_t bytes, uint64_t segments, std::string &problem)
        : record_(record), bytes_(bytes), problem_(problem), at_(64 + 16 * segments)
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
    uint64_t at_;
};

/* One index: bits 12 j .. 12 j + 11 of the section, bit by bit. */
inline uint32_t readTwelveBits(const uint8_t *section, uint64_t j)
{
    uint32_t x = 0;
    for (uint64_t bit = 0; bit < 12; bit++)
        x |= static_cast<uint32_t>(section[(12 * j + bit) / 8] >> ((12 * j + bit) % 8) & 1) << bit;
    return x;
}

inline float floatOf(uint32_t bits)
{
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

/* binary16 by its definition. */
inline double halfOf(uint16_t bits)
{
    int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    double magnitude = exponent == 31 ? (mantissa ? NAN : INFINITY)
                       : exponent     ? std::ldexp(1024 + mantissa, exponent - 25)
                                      : std::ldexp(mantissa, -24);
    return bits & 0x8000 ? -magnitude : magnitude;
}

/* Bits of a slot's code. */
inline uint32_t codeBits(const Record &r, int group)
{
    static const uint32_t bits[] = {32, 16, 32, 64, 16, 1, 2, 8, 9, 7, 2};
    if (r.layout == allLayout)
        return r.aux & 255;
    return group == 1 ? 1 : bits[r.coding];
}

/* The code in slot j: bits b j .. b j + b - 1 of the section, bit by bit. */
inline uint64_t readCode(const uint8_t *section, uint32_t bits, uint64_t j)
{
    uint64_t x = 0;
    for (uint64_t bit = 0; bit < bits; bit++)
        x |= static_cast<uint64_t>(section[(bits * j + bit) / 8] >> ((bits * j + bit) % 8) & 1) << bit;
    return x;
}

/* A number of 16, 32 or 64 bits. */
inline double plainNumber(uint32_t coding, const uint8_t *values, uint64_t at, float scale)
{
    switch (coding) {
    case codingF64: return readAt<double>(values, 8 * at);
    case codingF16: return halfOf(readAt<uint16_t>(values, 2 * at)) / scale;
    case codingBf16: return floatOf(static_cast<uint32_t>(readAt<uint16_t>(values, 2 * at)) << 16);
    default: return readAt<float>(values, 4 * at);
    }
}

/* What a code of block b is to be multiplied by. */
inline float scaleOf(const Record &r, uint64_t block)
{
    return r.scales.empty() ? r.scale : r.scales[block];
}

inline double readValue(const Record &r, int group, const uint8_t *values, uint64_t slot, uint64_t block,
                        uint32_t levels)
{
    float scale = r.coding == codingBook ? 0 : scaleOf(r, block);
    uint32_t bits = codeBits(r, group);
    uint64_t code = readCode(values, bits, slot), level = code & ((1ull << (bits - 1)) - 1);
    double wide;
    if (r.coding == codingShared && group == 1)
        return code ? -scale : scale;
    switch (r.coding) {
    case codingBf16: return floatOf(static_cast<uint32_t>(code) << 16);
    case codingF16: return halfOf(static_cast<uint16_t>(code)) / scale;
    case codingF64: std::memcpy(&wide, &code, 8); return wide;
    case codingSign: return code && scale > 0 ? -scale : scale;
    case codingTernary: return code == 1 ? scale : code == 2 ? -scale : 0.0;
    case codingLevels:
        wide = static_cast<float>(scale * (static_cast<double>(level) / levels));
        return code >> (bits - 1) ? -wide : wide;
    case codingNatural:
        return floatOf(static_cast<uint32_t>(code & 255) << 23 | static_cast<uint32_t>(code >> 8) << 31);
    case codingGrid: return static_cast<float>(scale * (2.0 * static_cast<double>(code) / levels - 1.0));
    case codingBook: return r.scales[4 * block + code];
    default: return floatOf(static_cast<uint32_t>(code));
    }
}

inline uint64_t valueSectionBytes(const Record &r, int group, uint64_t slots)
{
    return (slots * codeBits(r, group) + 7) / 8;
}

inline bool hasScales(const Record &r)
{
    return (r.coding == codingSign || r.coding == codingTernary || r.coding == codingLevels || r.coding == codingGrid ||
            r.coding == codingBook) &&
           !(r.layout == allLayout && r.aux & 256);
}

inline void readScales(Record &r, SectionReader &sections)
{
    uint64_t blocks = hasScales(r) ? r.blocks.size() : 0, n = r.coding == codingBook ? 4 * blocks : blocks;
    const uint8_t *scales = sections.take(4 * n);
    for (uint64_t i = 0; i < n && scales; i++)
        r.scales.push_back(readAt<float>(scales, 4 * i));
    r.valueBytes += 4 * n;
}

/* Slots of block b of a group: [first, next). */
struct SlotRange {
    uint64_t first, next;
};

/* Chunked: `before` slots precede it. */
inline SlotRange slotsOfBlock(const Record &r, const uint8_t *table, uint64_t block, uint64_t before, uint64_t slots)
{
    if (r.layout == globalLayout)
        return {readAt<uint32_t>(table, 4 * block), readAt<uint32_t>(table, 4 * block + 4)};
    uint64_t own = r.blocks[block].whole ? 0 : (r.aux * r.blocks[block].length + 4095) / 4096;
    return {std::min(before, slots), std::min(before + own, slots)};
}

/* Complains about bits behind the last code. */
inline void checkEnd(Record &r, int group, const uint8_t *values, uint64_t slots)
{
    uint64_t bits = slots * codeBits(r, group);
    if (values && bits % 8 && values[bits / 8] >> bits % 8 != 0)
        r.problem = "bits behind the last code are not zero";
}

inline void readGroup(Record &r, int group, uint64_t slots, SectionReader &sections, uint32_t levels)
{
    uint64_t blocks = r.blocks.size(), before = 0;
    const uint8_t *table = r.layout == globalLayout ? sections.take(4 * (blocks + 1)) : nullptr;
    r.indexBytes += r.layout == globalLayout ? 4 * (blocks + 1) : 0;
    readScales(r, sections);
    const uint8_t *values = sections.take(valueSectionBytes(r, group, slots));
    const uint8_t *indices = sections.take((12 * slots + 7) / 8);
    r.valueBytes += valueSectionBytes(r, group, slots);
    r.indexBytes += (12 * slots + 7) / 8;
    checkEnd(r, group, values, slots);
    if (!r.problem.empty())
        return;
    if (slots % 2 && indices[12 * slots / 8] >> 4 != 0)
        r.problem = "the last index's upper half is not zero";
    if (table && readAt<uint32_t>(table, 4 * blocks) != slots)
        r.problem = "the block table does not end at the number of slots";
    for (uint64_t b = 0; b < blocks && r.problem.empty(); b++) {
        SlotRange range = slotsOfBlock(r, table, b, before, slots);
        before = range.next;
        if (range.first > range.next || range.next > slots || (r.blocks[b].whole && range.first != range.next)) {
            r.problem = "the block table is not ascending";
            return;
        }
        for (uint64_t slot = range.first; slot < range.next; slot++) {
            uint64_t place = readTwelveBits(indices, slot), index = r.blocks[b].first + place;
            bool ascending = slot == range.first || r.coordinates.back().index < index;
            if (place >= r.blocks[b].length || !ascending) {
                r.problem = "bad index in slot " + std::to_string(slot);
                return;
            }
            r.coordinates.push_back({index, readValue(r, group, values, slot, b, levels), group});
        }
    }
}

/* Group 1 as two bits a coordinate: 0 none, 1 plus, 2 minus. Between tensors places may be free: nothing stands there. */
inline void readMap(Record &r, uint64_t slots, SectionReader &sections)
{
    const uint8_t *map = sections.take((2 * r.places + 7) / 8);
    uint64_t found = 0, present = 0;
    r.valueBytes += (2 * r.places + 7) / 8;
    for (uint64_t i = 0; i < (r.places + 3) / 4 * 4 && map; i++)
        present += readCode(map, 2, i) != 0;
    for (const Block &block : r.blocks)
        for (uint64_t i = 0; i < block.length && map && !block.whole; i++) {
            uint64_t code = readCode(map, 2, block.place + i);
            if (code == 3)
                r.problem = "a map's code is 3";
            if (code == 0)
                continue;
            r.coordinates.push_back({block.first + i, code == 2 ? -r.scale : r.scale, 1});
            found++;
        }
    if (map && present != found)
        r.problem = "the map goes on behind the last coordinate";
    if (found != slots)
        r.problem = "the map has " + std::to_string(found) + " coordinates, not " + std::to_string(slots);
}

/* Complains about codes between tensors. */
inline void checkBetween(Record &r, const uint8_t *values, uint32_t bits)
{
    for (size_t b = 0; b < r.blocks.size() && r.tensors; b++) {
        uint64_t end = r.blocks[b].place + (r.blocks[b].length + 127) / 128 * 128;
        for (uint64_t i = r.blocks[b].place + r.blocks[b].length; i < end && !r.blocks[b].whole; i++)
            if (readCode(values, bits, i) != 0)
                r.problem = "a code between tensors is not zero";
    }
}

/* A code for every coordinate. */
inline void readAll(Record &r, SectionReader &sections, const Reading &reading)
{
    readScales(r, sections);
    uint64_t places = r.kept ? r.places : 0, bytes = valueSectionBytes(r, 0, places);
    const uint8_t *values = sections.take(bytes);
    r.valueBytes += bytes;
    checkEnd(r, 0, values, places);
    if (!r.problem.empty() || !r.kept)
        return;
    checkBetween(r, values, codeBits(r, 0));
    for (size_t b = 0; b < r.blocks.size(); b++)
        for (uint64_t i = 0; i < r.blocks[b].length && !r.blocks[b].whole; i++)
            r.coordinates.push_back(
                {r.blocks[b].first + i, readValue(r, 0, values, r.blocks[b].place + i, b, reading.levels), 0});
}

/* The mask's coordinates, which the reader is told. */
inline void readMasked(Record &r, SectionReader &sections, const Reading &reading)
{
    uint64_t bytes = valueSectionBytes(r, 0, r.kept);
    const uint8_t *values = sections.take(bytes);
    r.valueBytes += bytes;
    for (uint64_t slot = 0; slot < r.kept && slot < reading.mask.size() && values; slot++)
        r.coordinates.push_back({reading.mask[slot], readValue(r, 0, values, slot, 0, reading.levels), 0});
}

/* One gradient, or the tensors behind the first entry of the segment table. */
inline void readTensors(Record &r, const uint8_t *record, uint64_t segments)
{
    uint64_t element = 0;
    for (uint64_t s = segments > 1 ? 1 : 0; s < segments; s++) {
        uint64_t count = readAt<uint64_t>(record, 64 + 16 * s);
        uint32_t kind = readAt<uint32_t>(record, 72 + 16 * s);
        bool whole = segments > 1 && kind != 0;
        if (segments > 1 && (readAt<uint32_t>(record, 76 + 16 * s) != 0 || (whole && kind < 256)))
            r.problem = "a tensor's entry is not one";
        if (whole)
            r.wholeCoding = kind - 256;
        for (uint64_t at = 0; at < count && !(r.flags & flagSkip); at += 4096) {
            uint64_t length = std::min<uint64_t>(4096, count - at);
            r.blocks.push_back({element + at, length, whole, r.places});
            if (!whole)
                r.places += segments > 1 ? (length + 127) / 128 * 128 : length;
        }
        element += count;
    }
    r.tensors = static_cast<uint32_t>(segments - 1);
    if (element != r.count)
        r.problem = "the tensors are not all elements";
}

inline void readWhole(Record &r, SectionReader &sections)
{
    static const uint64_t widths[] = {4, 2, 0, 8, 2};
    uint64_t elements = 0, at = 0;
    for (const Block &block : r.blocks)
        elements += block.whole ? block.length : 0;
    if (r.flags & (flagSkip | flagNonFinite) || elements == 0)
        return;
    const uint8_t *values = sections.take(elements * widths[r.wholeCoding]);
    r.valueBytes += elements * widths[r.wholeCoding];
    for (const Block &block : r.blocks)
        for (uint64_t i = 0; i < block.length && block.whole && values; i++)
            r.whole.push_back({block.first + i, plainNumber(r.wholeCoding, values, at++, r.scale), 2});
}

/* Of every row that has a bit all elements have a slot. */
inline void readRows(Record &r, SectionReader &sections)
{
    uint64_t blocks = (r.count + 4095) / 4096, rows = r.aux ? (r.count + r.aux - 1) / r.aux : 0;
    const uint8_t *table = sections.take(4 * (blocks + 1));
    const uint8_t *values = sections.take(valueSectionBytes(r, 0, r.kept));
    const uint8_t *bits = sections.take((rows + 7) / 8);
    r.valueBytes += valueSectionBytes(r, 0, r.kept);
    r.indexBytes += 4 * (blocks + 1) + (rows + 7) / 8;
    for (uint64_t row = 0; row < (rows + 7) / 8 * 8 && r.problem.empty(); row++) {
        if (!(bits[row / 8] >> row % 8 & 1))
            continue;
        if (row >= rows)
            r.problem = "a row behind the last";
        for (uint64_t i = row * r.aux; i < std::min((row + 1) * r.aux, r.count); i++) {
            uint64_t slot = r.coordinates.size();
            if (slot >= r.kept) {
                r.problem = "more in rows than in slots";
                return;
            }
            r.coordinates.push_back({i, readValue(r, 0, values, slot, i / 4096, 0), 0});
        }
    }
    if (r.problem.empty() && r.coordinates.size() != r.kept)
        r.problem = "fewer in rows than in slots";
    for (uint64_t b = 0, slot = 0; b <= blocks && r.problem.empty(); b++) {
        while (slot < r.kept && r.coordinates[slot].index < 4096 * b)
            slot++;
        if (readAt<uint32_t>(table, 4 * b) != slot)
            r.problem = "the block table does not say where the rows are cut";
    }
}

inline void readGroups(Record &r, SectionReader &sections, const Reading &reading)
{
    uint64_t first = r.coding == codingShared ? r.aux : r.kept;
    readGroup(r, 0, first, sections, reading.levels);
    if (r.coding == codingShared && r.problem.empty()) {
        if (r.flags & flagMap)
            readMap(r, r.kept - first, sections);
        else
            readGroup(r, 1, r.kept - first, sections, reading.levels);
    }
    std::sort(r.coordinates.begin(), r.coordinates.end(),
              [](const Coordinate &a, const Coordinate &b) { return a.index < b.index; });
}

inline Record readRecord(const uint8_t *record, uint64_t room, const Reading &reading = {})
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
    uint64_t segments = readAt<uint16_t>(record, 12);
    if (segments == 0 || 64 + 16 * segments > room || readAt<uint64_t>(record, 64) != r.count)
        r.problem = "no segment of all elements";
    else if (r.bytes > room || r.bytes % 16 != 0)
        r.problem = "bad length";
    else if (readAt<uint64_t>(record, 56) != recordChecksum(record, r.bytes))
        r.problem = "bad checksum";
    if (!r.problem.empty())
        return r;
    readTensors(r, record, segments);
    SectionReader sections(record, r.bytes, segments, r.problem);
    const uint8_t *coefficients = r.flags & flagReferences && !(r.flags & flagSkip) ? sections.take(64) : nullptr;
    for (uint64_t p = 0; p < 8 && coefficients; p++)
        r.coefficients.push_back(readAt<double>(coefficients, 8 * p));
    readWhole(r, sections);
    if (!r.problem.empty())
        return r;
    if (r.flags & flagSkip)
        r.problem = r.kept ? "silent, and yet with coordinates" : "";
    else if (r.layout == maskLayout)
        readMasked(r, sections, reading);
    else if (r.layout == allLayout)
        readAll(r, sections, reading);
    else if (r.layout == rowsLayout)
        readRows(r, sections);
    else
        readGroups(r, sections, reading);
    if (r.problem.empty() && sections.at() != r.bytes)
        r.problem = "bytes are left behind the sections";
    return r;
}

} // namespace gst
#endif
