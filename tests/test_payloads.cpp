/*
 * Any bytes at all: gsRecordInspect and gsDecode return an error or a valid result, and touch nothing beyond the record.
 * Records end at a page that cannot be read. Many mutations carry a right checksum, so that the checks behind it are reached.
 */
#include "oracle.h"
#include "tensors.h"

#include <sys/mman.h>

namespace gst
{
namespace
{

/* `bytes` of memory that end where a forbidden page begins. */
class Fenced
{
  public:
    explicit Fenced(size_t bytes) : bytes_(bytes), mapped_((bytes + page - 1) / page * page + page)
    {
        base_ =
            static_cast<uint8_t *>(mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        mprotect(base_ + mapped_ - page, page, PROT_NONE);
    }
    ~Fenced()
    {
        munmap(base_, mapped_);
    }
    Fenced(const Fenced &) = delete;
    uint8_t *data() const
    {
        return base_ + mapped_ - page - bytes_;
    }
    size_t bytes() const
    {
        return bytes_;
    }

  private:
    static constexpr size_t page = 4096;
    size_t bytes_, mapped_;
    uint8_t *base_;
};

class Mutator
{
  public:
    Mutator(uint64_t seed, size_t segments) : random_(seed), segments_(segments)
    {
    }

    /* Damages a record in a slot of `room` bytes, and in half of the cases makes its checksum right again. */
    void damage(uint8_t *record, size_t room)
    {
        switch (random_() % 8) {
        case 0: randomBytes(record, room); break;
        case 1: field(record); break;
        case 2: field(record), field(record); break;
        case 3: bits(record, room, 1); break;
        case 4: bits(record, room, 1 + random_() % 20); break;
        case 5: words(record + 80, room - 80); break;
        case 6: bits(record, 64 + 16 * segments_, 1 + random_() % 3); break;
        case 7: shift(record, room); break;
        }
        if (random_() % 4 != 0)
            repairPrefix(record);
        if (random_() % 2 == 0)
            repairChecksum(record, room);
    }

    uint64_t next()
    {
        return random_();
    }

    static void repairChecksum(uint8_t *record, size_t room)
    {
        uint64_t bytes = readAt<uint64_t>(record, 48);
        if (bytes >= 80 && bytes <= room && bytes % 8 == 0)
            writeAt(record, 56, recordChecksum(record, bytes));
    }

  private:
    void randomBytes(uint8_t *record, size_t room)
    {
        for (size_t i = random_() % 2 ? 0 : 48; i < room; i++)
            record[i] = static_cast<uint8_t>(random_());
    }
    /* A header or segment field becomes 0, 1, a large, a near or a random number. */
    void field(uint8_t *record)
    {
        static const struct {
            size_t at, width;
        } fields[] = {{0, 4},  {4, 2},  {6, 2},  {8, 4},  {12, 2}, {14, 1}, {15, 1}, {16, 8},
                      {24, 8}, {32, 8}, {40, 8}, {48, 8}, {64, 8}, {72, 4}, {76, 4}};
        size_t segment = random_() % segments_;
        auto f = fields[random_() % (sizeof fields / sizeof *fields)];
        f.at += f.at >= 64 ? 16 * segment : 0;
        uint64_t old = 0;
        std::memcpy(&old, record + f.at, f.width);
        const uint64_t values[] = {0,         1,
                                   2,         ~0ull,
                                   old + 1,   old - 1,
                                   old + 16,  old - 16,
                                   old * 2,   1ull << random_() % 64,
                                   random_(), random_() % 5000};
        uint64_t value = values[random_() % (sizeof values / sizeof *values)];
        std::memcpy(record + f.at, &value, f.width);
        if (f.at == 24 && random_() % 2) /* the two counts agree */
            std::memcpy(record + 64, &value, 8);
        if (f.at >= 80 && f.width == 8 && random_() % 2) /* what one tensor gains another loses */
            move(record, segment, value - old);
    }
    void bits(uint8_t *record, size_t room, size_t n)
    {
        for (size_t i = 0; i < n; i++)
            record[random_() % room] ^= static_cast<uint8_t>(1 << random_() % 8);
    }
    /* 32-bit words of tables, values and indices. */
    void words(uint8_t *sections, size_t bytes)
    {
        for (size_t n = 1 + random_() % 8; bytes >= 4 && n > 0; n--) {
            const uint32_t values[] = {0, ~0u, 0x7f800000u, static_cast<uint32_t>(random_()),
                                       static_cast<uint32_t>(random_() % 4096)};
            writeAt(sections, random_() % (bytes / 4) * 4, values[random_() % 5]);
        }
    }
    void shift(uint8_t *record, size_t room)
    {
        size_t from = random_() % room, by = 1 + random_() % 32;
        if (from + by < room)
            std::memmove(record + from, record + from + by, room - from - by);
    }
    void repairPrefix(uint8_t *record) const
    {
        std::memcpy(record, "GSR1\1\0", 6);
        writeAt<uint16_t>(record, 12, static_cast<uint16_t>(segments_));
    }
    void move(uint8_t *record, size_t segment, uint64_t by) const
    {
        size_t other = 64 + 16 * (1 + segment % (segments_ - 1));
        writeAt(record, other, readAt<uint64_t>(record, other) - by);
    }

    std::mt19937_64 random_;
    size_t segments_;
};

struct Seedling {
    const char *recipe;
    uint64_t count;
    std::vector<uint64_t> segments = {};
};

const Seedling seedlings[] = {
    {"threshold:density=0.05", 300},
    {"threshold:density=0.3,value=f32", 9000},
    {"chunk-topk:k=40", 700},
    {"chunk-topk:k=3,value=f32", 8300},
    {"gspar:value=shared,density=0.2", 500},
    {"gspar:value=shared,density=0.01", 12300},
    {"gspar:density=0.1", 4096},
    {"randk:density=0.1", 400},
    {"chunk-topk:k=4096", 33},
    {"gspar:value=shared,density=0.5,capacity=1", 700},
    {"gspar:value=f16,density=0.2", 5000},
    {"topk:value=f64,density=0.1", 5000},
    {"identity:value=bf16", 500},
    {"ef-sign", 5001},
    {"sign:bucket=all", 700},
    {"terngrad", 4099},
    {"qsgd:levels=5", 700},
    {"ef21:select=grid,levels=5", 5000},
    {"laq:bucket=all", 700},
    {"topk:density=0.1,value=2bit", 5001},
    {"chunk-topk:k=41,value=2bit", 5000},
    {"natural", 501},
    {"tng:reference=last+ema,search=worker", 4099},
    {"tng:reference=last+mean,search=fit,select=topk,density=0.1", 700},
    {"tng:reference=last,search=worker,mode=quotient", 500},
    {"lag-wk", 300},
    {"ef21:density=0.05", 4100},
    {"rows:width=7", 600, {}},
    {"rows:width=3000", 4200, {}},
    {"threshold:density=0.05", 9500, {5000, 300, 0, 4096, 104}},
    {"chunk-topk:k=40", 9500, {5000, 300, 0, 4096, 104}},
    {"gspar:value=shared,density=0.2", 9500, {300, 4100, 100, 5000}},
    {"gspar:value=shared,density=0.9,capacity=1", 9500, {300, 4100, 100, 5000}},
    {"terngrad", 9500, {300, 4100, 100, 5000}},
    {"topk:density=0.1,value=2bit", 9500, {300, 4100, 100, 5000}},
    {"tng:reference=last+ema,search=worker,select=natural", 4500, {4100, 400}},
    {"threshold:density=0.05", 500, {300, 200}},
};

Plan planOf(const Seedling &seedling)
{
    Plan plan;
    plan.recipe = seedling.recipe;
    plan.count = seedling.count;
    plan.segments = seedling.segments;
    plan.nranks = 2;
    return plan;
}

class Payloads : public testing::TestWithParam<Seedling>
{
};

/* What inspect calls valid, the independent reader can read, too. */
TEST_P(Payloads, InspectNeverCrashes)
{
    Plan plan = planOf(GetParam());
    StageRanks ranks(plan);
    Slots slots = ranks.encode(makeGradients(Shape::Gaussian, plan, 0));
    uint64_t recordBytes = readAt<uint64_t>(slots.slot(1), 48), valid = 0;
    Mutator mutator(GetParam().count, 1 + GetParam().segments.size());
    Fenced record(recordBytes);
    for (int n = 0; n < 20000; n++) {
        std::memcpy(record.data(), slots.slot(1), recordBytes);
        mutator.damage(record.data(), recordBytes);
        size_t skip = mutator.next() % 3 == 0 ? mutator.next() % (recordBytes + 1) : 0;
        uint8_t *cut = record.data() + skip;
        std::memmove(cut, record.data(), recordBytes - skip); /* cut short at the fence */
        gsRecordInfo_t info;
        gsResult_t result = gsRecordInspect(cut, recordBytes - skip, &info);
        if (result != GS_SUCCESS) {
            ASSERT_EQ(result, GS_ERROR_CORRUPT);
            continue;
        }
        valid++;
        ASSERT_LE(info.recordBytes, recordBytes - skip);
        if (std::string(info.layout) != "mask" && !(info.flags & GS_RECORD_NONFINITE)) {
            Record read = readRecord(cut, info.recordBytes);
            bool padded =
                read.problem.find("not zero") != std::string::npos || /* harmless, and the reader stops there */
                read.problem.find(" map") != std::string::npos;
            ASSERT_TRUE(read.problem.empty() || padded) << read.problem;
            ASSERT_TRUE(padded || read.coordinates.size() == info.kept);
        }
    }
    EXPECT_GT(valid, 20u) << "mutations that only the last checks see";
    EXPECT_LT(valid, 19000u);
}

TEST_P(Payloads, DecodeNeverCrashes)
{
    Plan plan = planOf(GetParam());
    StageRanks ranks(plan);
    Gradients g = makeGradients(Shape::Gaussian, plan, 0);
    Slots slots = ranks.encode(g);
    Fenced records(slots.bytes());
    Mutator mutator(GetParam().count + 1, 1 + GetParam().segments.size());
    uint64_t accepted = 0;
    Buffer send(plan.type, g[0]), recv(plan.type, plan.count);
    std::vector<uint8_t> before = recv.raw(), state = ranks.state(0);
    for (int n = 0; n < 12000; n++) {
        std::memcpy(records.data(), slots.data(), slots.bytes());
        mutator.damage(records.data() + slots.slotBytes(), slots.slotBytes());
        gsResult_t result =
            gsDecode(records.data(), recv.data(), plan.count, plan.type, plan.op, ranks.reducer(0), nullptr);
        ASSERT_TRUE(recv.canariesIntact());
        if (result != GS_SUCCESS) {
            ASSERT_TRUE(result == GS_ERROR_CORRUPT || result == GS_ERROR_MISMATCH) << result;
            ASSERT_TRUE(n % 16 || (recv.raw() == before && ranks.state(0) == state))
                << "a refused record had an effect";
            continue;
        }
        accepted++; /* back to the first step */
        ASSERT_EQ(gsReducerReset(ranks.reducer(0), nullptr), GS_SUCCESS);
        ASSERT_EQ(ranks.encodeOne(0, g[0], slots.slot(0)), GS_SUCCESS);
        before = recv.raw();
    }
    EXPECT_GT(accepted, 20u) << "mutations that only the last checks see";
}

INSTANTIATE_TEST_SUITE_P(Recipes, Payloads, testing::ValuesIn(seedlings),
                         [](const auto &p) { return "case" + std::to_string(p.index); });

/* ---- structures that are wrong in one place, with a right checksum ---- */

class Structure : public testing::Test
{
  protected:
    void make(const char *recipe, uint64_t count)
    {
        Plan plan;
        plan.recipe = recipe;
        plan.count = count;
        plan.nranks = 1;
        ranks_ = std::make_unique<StageRanks>(plan);
        slots_ = std::make_unique<Slots>(ranks_->encode(makeGradients(Shape::Gaussian, plan, 0)));
        record_ = slots_->slot(0);
        good_ = {record_, record_ + slots_->bytes()};
        bytes_ = readAt<uint64_t>(record_, 48);
        kept_ = readAt<uint64_t>(record_, 32);
    }
    /* With a right checksum both inspect and decode still refuse it. */
    void expectRefused(const char *what)
    {
        Mutator::repairChecksum(record_, slots_->bytes());
        gsRecordInfo_t info;
        Buffer recv(GS_FLOAT32, ranks_->plan().count);
        std::vector<uint8_t> before = recv.raw();
        EXPECT_EQ(gsRecordInspect(record_, slots_->bytes(), &info), GS_ERROR_CORRUPT) << what;
        EXPECT_NE(ranks_->decodeOne(0, *slots_, recv), GS_SUCCESS) << what;
        EXPECT_TRUE(recv.raw() == before) << what;
        std::memcpy(record_, good_.data(), good_.size());
    }

    std::unique_ptr<StageRanks> ranks_;
    std::unique_ptr<Slots> slots_;
    uint8_t *record_ = nullptr;
    std::vector<uint8_t> good_;
    uint64_t bytes_ = 0, kept_ = 0;
};

TEST_F(Structure, BlockTables)
{
    make("threshold:density=0.05,value=f32", 9000); /* 3 blocks: table at 80, 4 words */
    for (uint32_t value : {1u, ~0u, static_cast<uint32_t>(kept_)}) {
        writeAt(record_, 80, value);
        expectRefused("a table that does not begin at 0");
    }
    for (uint32_t value : {static_cast<uint32_t>(kept_ + 1), ~0u, 0x80000000u, static_cast<uint32_t>(kept_)}) {
        writeAt(record_, 84, value);
        expectRefused("a table that descends or goes beyond");
    }
    writeAt(record_, 92, static_cast<uint32_t>(kept_ - 1));
    expectRefused("a table that ends early");
    std::swap_ranges(record_ + 84, record_ + 88, record_ + 88);
    expectRefused("two entries exchanged");
}

TEST_F(Structure, Indices)
{
    make("threshold:density=0.05,value=f32", 5000);
    uint64_t indices = 80 + 16 + (4 * kept_ + 15) / 16 * 16; /* table of 3 words */
    std::memset(record_ + indices, 0xFF, (12 * kept_ + 7) / 8);
    expectRefused("all indices the same");
    for (uint64_t j = 0; j + 1 < kept_; j += 2) {
        uint8_t *pair = record_ + indices + 3 * (j / 2);
        uint32_t both = pair[0] | pair[1] << 8 | static_cast<uint32_t>(pair[2]) << 16;
        if (j == 0 || readTwelveBits(record_ + indices, j) < readTwelveBits(record_ + indices, j + 1)) {
            both = (both >> 12 & 0xfff) | (both & 0xfff) << 12;
            pair[0] = static_cast<uint8_t>(both);
            pair[1] = static_cast<uint8_t>(both >> 8);
            pair[2] = static_cast<uint8_t>(both >> 16);
            expectRefused("two indices exchanged");
        }
    }
    uint64_t last = kept_ - 1, at = indices + 12 * last / 8;
    record_[at] |= static_cast<uint8_t>(last % 2 ? 0xf0 : 0xff);
    record_[at + 1] |= static_cast<uint8_t>(last % 2 ? 0xff : 0x0f);
    expectRefused("an index beyond the last block's 904 elements");
}

TEST_F(Structure, Rows)
{
    make("rows:width=100", 9010); /* 91 rows, all of them; 3 blocks: table at 80 */
    uint64_t rows = 80 + 16 + (4 * kept_ + 15) / 16 * 16;
    ASSERT_EQ(kept_, 9010u);
    for (uint64_t row : {0, 40, 90}) {
        record_[rows + row / 8] ^= static_cast<uint8_t>(1 << row % 8);
        expectRefused("a row less than slots");
    }
    for (int bit = 3; bit < 8; bit++) {
        record_[rows + 11] |= static_cast<uint8_t>(1 << bit);
        expectRefused("a row behind the last");
    }
    writeAt(record_, 84, 4095u);
    expectRefused("a block table that cuts elsewhere");
    for (uint32_t width : {0u, 1u, 99u, 101u, ~0u}) {
        writeAt(record_, 72, width);
        expectRefused("another width");
    }
    for (int coding : {codingShared, codingF16, codingSign, codingLevels, codingBook}) {
        writeAt<uint8_t>(record_, 15, static_cast<uint8_t>(coding));
        expectRefused("values of rows as what they never are");
    }
    make("rows:width=1", 1);
    writeAt<uint8_t>(record_, 15, codingF16);
    expectRefused("the same, where no length tells");
}

/* Two rows of 100 and 50 are as good as two of 99 and 51, but not to a reducer. */
TEST_F(Structure, RowsOfAnotherLength)
{
    make("rows:width=100", 150);
    writeAt(record_, 72, 99u);
    Mutator::repairChecksum(record_, slots_->bytes());
    gsRecordInfo_t info;
    Buffer recv(GS_FLOAT32, 150);
    EXPECT_EQ(gsRecordInspect(record_, slots_->bytes(), &info), GS_SUCCESS);
    EXPECT_NE(ranks_->decodeOne(0, *slots_, recv), GS_SUCCESS);
}

TEST_F(Structure, ChunkedCounts)
{
    make("chunk-topk:k=10", 5000);
    writeAt<uint32_t>(record_, 72, 11);
    expectRefused("another k");
    writeAt<uint64_t>(record_, 32, kept_ - 1);
    expectRefused("one coordinate less");
    writeAt<uint16_t>(record_, 6, flagNonFinite);
    expectRefused("non-finite, and yet with coordinates");
    writeAt<uint16_t>(record_, 6, 1);
    expectRefused("a reserved flag");
    writeAt<uint8_t>(record_, 15, codingShared);
    expectRefused("shared values in chunks");
}

TEST_F(Structure, SharedGroups)
{
    make("gspar:density=0.2,value=shared", 5000);
    writeAt<uint32_t>(record_, 72, static_cast<uint32_t>(kept_ + 1));
    expectRefused("a first group larger than the record");
    writeAt<uint32_t>(record_, 72, readAt<uint32_t>(record_, 72) + 1);
    expectRefused("groups that are not the table's");
    writeAt(record_, 76, INFINITY);
    expectRefused("an infinite magnitude");
    writeAt(record_, 76, std::nanf(""));
    expectRefused("a magnitude that is no number");
}

TEST_F(Structure, Lengths)
{
    make("gspar:density=0.2", 5000);
    for (uint64_t bytes : std::vector<uint64_t>{bytes_ - 16, bytes_ + 16, 80, 0, ~0ull, ~0ull - 15, bytes_ + 1}) {
        writeAt(record_, 48, bytes);
        expectRefused("another length");
    }
}

} // namespace
} // namespace gst
