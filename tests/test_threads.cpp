/* Ranks as threads of one process: what arrives, who is told of a failure, and that nothing hangs. */
#include <gtest/gtest.h>

#include "core.h"
#include "ranks.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <random>
#include <string>

namespace
{

using gst::parallel;
using std::chrono::milliseconds;
using Bytes = std::vector<unsigned char>;

const size_t sizes[] = {0, 1, 17, 4096, 1 << 20};

/* The communicators of ranks that are threads. */
class Comms
{
  public:
    explicit Comms(int nranks, int timeoutMs = 20000) : comms_(static_cast<size_t>(nranks))
    {
        gsCommConfig_t config = GS_COMM_CONFIG_INIT;
        config.timeoutMs = timeoutMs;
        EXPECT_EQ(GS_SUCCESS, gsCommInitAll(comms_.data(), nranks, &config)) << gsGetLastError();
    }
    ~Comms()
    {
        for (gsComm_t comm : comms_)
            EXPECT_EQ(GS_SUCCESS, gsCommDestroy(comm)) << gsGetLastError();
    }
    Comms(const Comms &) = delete;

    gsComm_t operator[](int rank) const
    {
        return comms_[static_cast<size_t>(rank)];
    }
    int count() const
    {
        return static_cast<int>(comms_.size());
    }

  private:
    std::vector<gsComm_t> comms_;
};

unsigned char byteOf(int rank, size_t i)
{
    return static_cast<unsigned char>(31 * rank + 7 * i + i / 251);
}

Bytes bytesOf(int rank, size_t bytes)
{
    Bytes made(bytes);
    for (size_t i = 0; i < bytes; i++)
        made[i] = byteOf(rank, i);
    return made;
}

gsResult_t allGather(gsComm_t comm, const void *send, void *recv, size_t bytes)
{
    return comm->transport->allGather(comm, send, recv, bytes, nullptr);
}

gsResult_t scatter(gsComm_t comm, const void *send, size_t total, void *recv, size_t slice)
{
    return comm->transport->scatterSlices(comm, send, total, recv, slice, nullptr);
}

gsResult_t allGatherExact(gsComm_t comm, const void *send, size_t bytes, void *recv, size_t slot)
{
    return comm->transport->allGatherExact(comm, send, bytes, recv, slot, nullptr);
}

gsResult_t allToAllExact(gsComm_t comm, const void *send, const size_t *bytes, void *recv, size_t slot)
{
    return comm->transport->allToAllExact(comm, send, bytes, recv, slot, nullptr);
}

/* One all-gather of 8 bytes, for tests that care about the outcome only. */
gsResult_t meet(gsComm_t comm)
{
    uint64_t mine = comm->rank;
    std::vector<uint64_t> all(comm->nranks);
    return allGather(comm, &mine, all.data(), sizeof mine);
}

gsResult_t asyncError(gsComm_t comm)
{
    gsResult_t error = GS_ERROR_SYSTEM;
    EXPECT_EQ(GS_SUCCESS, gsCommGetAsyncError(comm, &error));
    return error;
}

void expectGathered(const Bytes &all, int nranks, size_t bytes)
{
    for (int r = 0; r < nranks; r++)
        ASSERT_EQ(bytesOf(r, bytes), Bytes(all.begin() + r * bytes, all.begin() + (r + 1) * bytes)) << "rank " << r;
}

TEST(Threads, AllGatherBringsEveryRanksBytes)
{
    for (int nranks = 1; nranks <= 8; nranks++) {
        Comms ranks(nranks);
        parallel(nranks, [&](int rank) {
            for (size_t bytes : sizes) {
                Bytes send = bytesOf(rank, bytes), recv(nranks * bytes + 1, 0xee);
                ASSERT_EQ(GS_SUCCESS, allGather(ranks[rank], send.data(), recv.data(), bytes)) << gsGetLastError();
                expectGathered(recv, nranks, bytes);
                ASSERT_EQ(0xee, recv[nranks * bytes]);
            }
        });
    }
}

TEST(Threads, AllGatherInPlace)
{
    for (int nranks : {1, 3, 4}) {
        Comms ranks(nranks);
        parallel(nranks, [&](int rank) {
            for (size_t bytes : sizes) {
                Bytes own = bytesOf(rank, bytes), recv(nranks * bytes);
                std::copy(own.begin(), own.end(), recv.begin() + rank * bytes);
                ASSERT_EQ(GS_SUCCESS, allGather(ranks[rank], recv.data() + rank * bytes, recv.data(), bytes));
                expectGathered(recv, nranks, bytes);
            }
        });
    }
}

/* Totals that fill all slices, leave the last short, and leave some empty. */
TEST(Threads, ScatterBringsEachRankItsSlices)
{
    for (int nranks : {1, 2, 5, 8}) {
        Comms ranks(nranks);
        parallel(nranks, [&](int rank) {
            const size_t slice = 96;
            for (size_t total : {size_t{0}, size_t{1}, slice, slice * nranks - 95, slice * nranks}) {
                Bytes send = bytesOf(rank, total), recv(nranks * slice, 0xee), expected = recv;
                for (int r = 0; r < nranks; r++)
                    for (size_t i = rank * slice; i < (rank + 1) * slice && i < total; i++)
                        expected[r * slice + i - rank * slice] = byteOf(r, i);
                ASSERT_EQ(GS_SUCCESS, scatter(ranks[rank], send.data(), total, recv.data(), slice));
                ASSERT_EQ(expected, recv) << "total " << total;
            }
        });
    }
}

/* How many bytes rank `from` has for rank `to`, of at most `slot`: none among them, and whole slots. */
size_t lengthOf(int from, int to, size_t slot)
{
    return slot * static_cast<size_t>((3 * from + 5 * to) % 4) / 3;
}

TEST(Threads, ExactAllGatherBringsWhatThereIs)
{
    for (int nranks : {1, 2, 5, 8}) {
        Comms ranks(nranks);
        parallel(nranks, [&](int rank) {
            for (size_t slot : {size_t{0}, size_t{3}, size_t{3} << 18}) {
                Bytes send = bytesOf(rank, lengthOf(rank, 0, slot)), recv(nranks * slot, 0xee), expected = recv;
                for (int r = 0; r < nranks; r++)
                    for (size_t i = 0; i < lengthOf(r, 0, slot); i++)
                        expected[r * slot + i] = byteOf(r, i);
                ASSERT_EQ(GS_SUCCESS, allGatherExact(ranks[rank], send.data(), send.size(), recv.data(), slot));
                ASSERT_EQ(expected, recv) << "slot " << slot;
            }
        });
    }
}

TEST(Threads, ExactAllToAllBringsEachRankItsParts)
{
    for (int nranks : {1, 2, 5, 8}) {
        Comms ranks(nranks);
        parallel(nranks, [&](int rank) {
            for (size_t slot : {size_t{0}, size_t{3}, size_t{3} << 18}) {
                Bytes send = bytesOf(rank, nranks * slot), recv(nranks * slot, 0xee), expected = recv;
                std::vector<size_t> lengths;
                for (int r = 0; r < nranks; r++) {
                    lengths.push_back(lengthOf(rank, r, slot));
                    for (size_t i = 0; i < lengthOf(r, rank, slot); i++)
                        expected[r * slot + i] = byteOf(r, rank * slot + i);
                }
                ASSERT_EQ(GS_SUCCESS, allToAllExact(ranks[rank], send.data(), lengths.data(), recv.data(), slot));
                ASSERT_EQ(expected, recv) << "slot " << slot;
            }
        });
    }
}

TEST(Threads, BuffersMayBeReusedAtOnce)
{
    Comms ranks(4);
    parallel(4, [&](int rank) {
        Bytes send(3000), recv(4 * 3000);
        for (int round = 0; round < 200; round++) {
            memset(send.data(), 4 * round + rank, send.size());
            ASSERT_EQ(GS_SUCCESS, allGather(ranks[rank], send.data(), recv.data(), send.size()));
            memset(send.data(), 0xff, send.size());
            for (int r = 0; r < 4; r++)
                for (size_t i = 0; i < send.size(); i += 499)
                    ASSERT_EQ(static_cast<unsigned char>(4 * round + r), recv[r * send.size() + i]);
        }
    });
}

TEST(Threads, CommunicatorsAreIndependent)
{
    Comms left(3), right(3);
    parallel(6, [&](int thread) {
        const Comms &ranks = thread < 3 ? left : right;
        for (int round = 0; round < 300; round++)
            ASSERT_EQ(GS_SUCCESS, meet(ranks[thread % 3]));
    });
    ASSERT_EQ(GS_SUCCESS, gsCommAbort(left[0]));
    EXPECT_EQ(GS_ERROR_ABORTED, asyncError(left[2]));
    EXPECT_EQ(GS_SUCCESS, asyncError(right[2]));
}

TEST(Threads, DifferentSizesFailEveryRankAndNameBoth)
{
    Comms ranks(4);
    parallel(4, [&](int rank) {
        Bytes send(64), recv(4 * 64);
        ASSERT_EQ(GS_ERROR_MISMATCH, allGather(ranks[rank], send.data(), recv.data(), rank == 2 ? 48 : 64));
        std::string text = gsGetLastError();
        for (const char *part : {"rank 1", "rank 2", "64", "48"})
            EXPECT_NE(std::string::npos, text.find(part)) << text;
        ASSERT_EQ(GS_SUCCESS, allGather(ranks[rank], send.data(), recv.data(), 64)) << "an error, not the end";
    });
}

TEST(Threads, DifferentOperationsFailEveryRank)
{
    Comms ranks(3);
    parallel(3, [&](int rank) {
        Bytes send(96), recv(3 * 96);
        gsComm_t comm = ranks[rank];
        gsResult_t mixed =
            rank == 1 ? scatter(comm, send.data(), 96, recv.data(), 32) : allGather(comm, send.data(), recv.data(), 96);
        ASSERT_EQ(GS_ERROR_MISMATCH, mixed);
        mixed = rank == 0 ? comm->transport->allGatherHost(comm, send.data(), recv.data(), 32)
                          : allGather(comm, send.data(), recv.data(), 32);
        ASSERT_EQ(GS_ERROR_MISMATCH, mixed);
        size_t lengths[3] = {32, 32, 32};
        mixed = rank == 2 ? allToAllExact(comm, send.data(), lengths, recv.data(), 32)
                          : allGatherExact(comm, send.data(), 32, recv.data(), 32);
        ASSERT_EQ(GS_ERROR_MISMATCH, mixed);
        ASSERT_EQ(GS_ERROR_MISMATCH, allToAllExact(comm, send.data(), lengths, recv.data(), rank ? 32 : 24)) << "slots";
        ASSERT_EQ(GS_SUCCESS, meet(comm));
    });
}

void awaitCount(const std::atomic<int> &counter, int wanted)
{
    while (counter < wanted)
        std::this_thread::sleep_for(milliseconds(1));
}

TEST(Threads, DeadlineIsToldToEachRankOnceAndThenTheCallWorks)
{
    Comms ranks(4, 400);
    std::atomic<int> told{0};
    parallel(4, [&](int rank) {
        if (rank == 3)
            awaitCount(told, 3);
        ASSERT_EQ(GS_ERROR_TIMEOUT, meet(ranks[rank]));
        std::string text = gsGetLastError();
        EXPECT_NE(std::string::npos, text.find("did not arrive: rank 3")) << text;
        EXPECT_EQ(GS_SUCCESS, asyncError(ranks[rank]));
        told++;
        awaitCount(told, 4);
        ASSERT_EQ(GS_SUCCESS, meet(ranks[rank])) << gsGetLastError();
    });
}

TEST(Threads, LateRankMayArriveWhileItsPeersAlreadyRetry)
{
    Comms ranks(3, 400);
    std::atomic<int> told{0};
    parallel(3, [&](int rank) {
        if (rank == 1)
            awaitCount(told, 2);
        ASSERT_EQ(GS_ERROR_TIMEOUT, meet(ranks[rank]));
        told++;
        ASSERT_EQ(GS_SUCCESS, meet(ranks[rank])) << gsGetLastError();
    });
}

TEST(Threads, SeveralDeadlinesMissedAreOneReport)
{
    Comms ranks(2, 400);
    for (int i = 0; i < 3; i++)
        ASSERT_EQ(GS_ERROR_TIMEOUT, meet(ranks[0]));
    ASSERT_EQ(GS_ERROR_TIMEOUT, meet(ranks[1]));
    parallel(2, [&](int rank) { ASSERT_EQ(GS_SUCCESS, meet(ranks[rank])) << gsGetLastError(); });
}

TEST(Threads, AbortFromAnotherThreadWakesAllForGood)
{
    Comms ranks(4);
    std::thread watchdog([&] {
        std::this_thread::sleep_for(milliseconds(50));
        EXPECT_EQ(GS_SUCCESS, gsCommAbort(ranks[3]));
    });
    auto began = std::chrono::steady_clock::now();
    parallel(3, [&](int rank) {
        ASSERT_EQ(GS_ERROR_ABORTED, meet(ranks[rank]));
        ASSERT_EQ(GS_ERROR_ABORTED, meet(ranks[rank]));
    });
    watchdog.join();
    EXPECT_LT(std::chrono::steady_clock::now() - began, milliseconds(5000));
    EXPECT_EQ(GS_ERROR_ABORTED, meet(ranks[3]));
    for (int rank = 0; rank < 4; rank++)
        EXPECT_EQ(GS_ERROR_ABORTED, asyncError(ranks[rank]));
    EXPECT_EQ(GS_SUCCESS, gsCommAbort(ranks[0])) << "a second abort is no error";
}

TEST(Threads, DestroyedRankFailsItsPeersAtOnce)
{
    std::vector<gsComm_t> comms(3);
    ASSERT_EQ(GS_SUCCESS, gsCommInitAll(comms.data(), 3, nullptr));
    parallel(3, [&](int rank) {
        if (rank == 1) {
            std::this_thread::sleep_for(milliseconds(30));
            ASSERT_EQ(GS_SUCCESS, gsCommDestroy(comms[1]));
            return;
        }
        ASSERT_EQ(GS_ERROR_INVALID_USAGE, meet(comms[rank]));
        ASSERT_EQ(GS_SUCCESS, gsCommDestroy(comms[rank]));
    });
}

TEST(Threads, CommunicatorsEndInAnyOrderOnAnyThread)
{
    for (int first = 0; first < 3; first++) {
        std::vector<gsComm_t> comms(3);
        ASSERT_EQ(GS_SUCCESS, gsCommInitAll(comms.data(), 3, nullptr));
        parallel(3, [&](int rank) {
            ASSERT_EQ(GS_SUCCESS, meet(comms[rank]));
            std::this_thread::sleep_for(milliseconds((rank + first) % 3));
            ASSERT_EQ(GS_SUCCESS, gsCommDestroy(comms[rank]));
        });
    }
}

/* One all-gather of `value`, many times. Where it succeeds, all ranks must have sent the same. */
gsResult_t meetAtLength(gsComm_t comm, uint64_t value, size_t words)
{
    std::vector<uint64_t> own(words, value), all(words * static_cast<size_t>(comm->nranks), ~value);
    gsResult_t result = allGather(comm, own.data(), all.data(), words * sizeof value);
    if (result == GS_SUCCESS) {
        EXPECT_EQ(all.size(), static_cast<size_t>(std::count(all.begin(), all.end(), value))) << "rank " << comm->rank;
    }
    return result;
}

/* Each rank sends the number of its successes: had one ever succeeded where another failed, they would differ. */
void countTogether(const Comms &ranks, int rank, uint64_t wanted, unsigned seed, int delayUs, uint64_t *failures)
{
    std::mt19937 random(seed * 1000 + static_cast<unsigned>(rank));
    uint64_t successes = 0;
    while (successes < wanted) {
        std::this_thread::sleep_for(std::chrono::microseconds(random() % static_cast<unsigned>(delayUs)));
        gsResult_t result = meetAtLength(ranks[rank], successes, 500);
        if (result == GS_ERROR_TIMEOUT) {
            ++*failures;
            continue;
        }
        ASSERT_EQ(GS_SUCCESS, result) << gsGetLastError();
        successes++;
    }
}

TEST(Threads, AllRanksAgreeAboutEveryRoundUnderRandomDelays)
{
    for (int nranks : {2, 4, 7}) {
        Comms ranks(nranks, 3);
        std::vector<uint64_t> failures(nranks);
        parallel(nranks,
                 [&](int rank) { countTogether(ranks, rank, 60, nranks, nranks == 2 ? 6000 : 4000, &failures[rank]); });
        for (int rank = 0; rank < nranks; rank++)
            EXPECT_GT(failures[rank], 0u) << "the delays were meant to provoke deadlines";
    }
}

/* An abort at any moment of a round: it succeeds for all ranks or for none. */
TEST(Threads, AbortAtAnyMomentNeverSplitsTheRanks)
{
    for (unsigned seed = 1; seed <= 60; seed++) {
        Comms ranks(3);
        std::vector<uint64_t> successes(3);
        std::thread watchdog([&] {
            std::this_thread::sleep_for(std::chrono::microseconds(seed * 131));
            gsCommAbort(ranks[static_cast<int>(seed % 3)]);
        });
        parallel(3, [&](int rank) {
            size_t mine = static_cast<size_t>(rank);
            while (meetAtLength(ranks[rank], successes[mine], 20000) == GS_SUCCESS)
                successes[mine]++;
        });
        watchdog.join();
        EXPECT_EQ(std::vector<uint64_t>(3, successes[0]), successes);
    }
}

TEST(Threads, RefusesWhatItCannotMake)
{
    gsComm_t comms[2] = {};
    gsCommConfig_t config = GS_COMM_CONFIG_INIT;
    EXPECT_EQ(GS_ERROR_INVALID_ARGUMENT, gsCommInitAll(nullptr, 2, nullptr));
    EXPECT_EQ(GS_ERROR_INVALID_ARGUMENT, gsCommInitAll(comms, 0, nullptr));
    EXPECT_EQ(GS_ERROR_INVALID_ARGUMENT, gsCommInitAll(comms, 1025, nullptr));
    config.timeoutMs = -1;
    EXPECT_EQ(GS_ERROR_INVALID_ARGUMENT, gsCommInitAll(comms, 2, &config));
    EXPECT_EQ(nullptr, comms[0]);
}

/* ---- parts ---- */

/* This rank's part: `parts` of them, one rank after the other into the next. */
gsComm_t dealt(gsComm_t comm, int parts, int key = 0)
{
    gsComm_t part = nullptr;
    EXPECT_EQ(GS_SUCCESS, comm->transport->split(comm, comm->rank % parts, key, &part)) << gsGetLastError();
    return part;
}

TEST(Threads, PartsHaveTheRanksOfTheirColorInTheOrderOfKeys)
{
    for (int nranks : {1, 3, 6, 7})
        for (int parts : {1, 2, 3}) {
            Comms ranks(nranks);
            parallel(nranks, [&](int rank) {
                gsComm_t up = dealt(ranks[rank], parts), down = dealt(ranks[rank], parts, -rank);
                int members = (nranks - rank % parts + parts - 1) / parts, own = rank / parts;
                ASSERT_EQ(members, up->nranks);
                ASSERT_EQ(own, up->rank);
                ASSERT_EQ(members - 1 - own, down->rank);
                std::vector<uint64_t> all(members);
                uint64_t mine = 100 + rank;
                ASSERT_EQ(GS_SUCCESS, allGather(down, &mine, all.data(), sizeof mine));
                for (int r = 0; r < members; r++)
                    ASSERT_EQ(100u + rank % parts + (members - 1 - r) * parts, all[r]);
            });
        }
}

/* Every operation, by parts whose ranks have other lengths than those of the next part. */
TEST(Threads, PartsExchangeAmongThemselves)
{
    const int nranks = 7, parts = 2;
    Comms ranks(nranks);
    parallel(nranks, [&](int rank) {
        gsComm_t part = dealt(ranks[rank], parts);
        int members = part->nranks, color = rank % parts;
        size_t slot = 300 + 100 * static_cast<size_t>(color);
        Bytes send = bytesOf(rank, members * slot), recv(members * slot), expected(members * slot, 0xee);
        ASSERT_EQ(GS_SUCCESS, allGather(part, send.data(), recv.data(), slot));
        for (int r = 0; r < members; r++)
            for (size_t i = 0; i < slot; i++)
                ASSERT_EQ(byteOf(color + r * parts, i), recv[r * slot + i]);
        ASSERT_EQ(GS_SUCCESS, scatter(part, send.data(), send.size(), recv.data(), slot));
        for (int r = 0; r < members; r++)
            for (size_t i = 0; i < slot; i++)
                ASSERT_EQ(byteOf(color + r * parts, part->rank * slot + i), recv[r * slot + i]);
        recv.assign(recv.size(), 0xee);
        std::vector<size_t> lengths(members, 10 + static_cast<size_t>(rank));
        for (int r = 0; r < members; r++)
            for (int i = 0; i < 10 + color + r * parts; i++)
                expected[r * slot + i] = byteOf(color + r * parts, part->rank * slot + i);
        ASSERT_EQ(GS_SUCCESS, allToAllExact(part, send.data(), lengths.data(), recv.data(), slot));
        ASSERT_EQ(expected, recv);
    });
}

TEST(Threads, DeadlineInAPartIsEveryRanksAndThenTheCallWorks)
{
    Comms ranks(4);
    std::atomic<int> told{0};
    parallel(4, [&](int rank) {
        gsComm_t part = dealt(ranks[rank], 2);
        ranks[rank]->timeoutMs = 300;
        if (rank == 3)
            awaitCount(told, 3);
        ASSERT_EQ(GS_ERROR_TIMEOUT, meet(part)) << "of ranks 0 and 2 none is missing, and yet";
        std::string text = gsGetLastError();
        EXPECT_NE(std::string::npos, text.find("did not arrive: rank 3")) << text;
        told++;
        awaitCount(told, 4);
        ASSERT_EQ(GS_SUCCESS, meet(part)) << gsGetLastError();
        ASSERT_EQ(GS_SUCCESS, meet(ranks[rank])) << gsGetLastError();
    });
}

TEST(Threads, MismatchInOnePartFailsEveryRank)
{
    Comms ranks(4);
    parallel(4, [&](int rank) {
        gsComm_t part = dealt(ranks[rank], 2), other = dealt(ranks[rank], 2);
        Bytes send(64), recv(4 * 64);
        ASSERT_EQ(GS_ERROR_MISMATCH, allGather(part, send.data(), recv.data(), rank == 3 ? 48 : 64));
        std::string text = gsGetLastError();
        EXPECT_NE(std::string::npos, text.find("rank 1 is")) << text;
        EXPECT_NE(std::string::npos, text.find("rank 3 in")) << text;
        ASSERT_EQ(GS_ERROR_MISMATCH, meet(rank == 2 ? other : part)) << "another split";
        ASSERT_EQ(GS_ERROR_MISMATCH, meet(rank == 2 ? ranks[rank] : part)) << "the whole";
        ASSERT_EQ(GS_SUCCESS, meet(part));
    });
}

TEST(Threads, AbortOfTheWholeWakesRanksInTheirParts)
{
    Comms ranks(4);
    std::vector<gsComm_t> parts(4);
    parallel(4, [&](int rank) { parts[rank] = dealt(ranks[rank], 2); });
    std::thread watchdog([&] {
        std::this_thread::sleep_for(milliseconds(50));
        EXPECT_EQ(GS_SUCCESS, gsCommAbort(ranks[3]));
    });
    parallel(3, [&](int rank) { ASSERT_EQ(GS_ERROR_ABORTED, meet(parts[rank])); });
    watchdog.join();
    EXPECT_EQ(GS_ERROR_ABORTED, meet(parts[3]));
    EXPECT_EQ(GS_ERROR_ABORTED, asyncError(parts[0]));
}

TEST(Threads, DestroyedRankFailsPartsAtOnce)
{
    std::vector<gsComm_t> comms(3);
    ASSERT_EQ(GS_SUCCESS, gsCommInitAll(comms.data(), 3, nullptr));
    parallel(3, [&](int rank) {
        gsComm_t part = dealt(comms[rank], 2);
        if (rank != 1) {
            EXPECT_EQ(GS_ERROR_INVALID_USAGE, meet(part));
        }
        ASSERT_EQ(GS_SUCCESS, gsCommDestroy(comms[rank]));
    });
}

TEST(Threads, ManyRanks)
{
    Comms ranks(64);
    parallel(64, [&](int rank) {
        for (int round = 0; round < 5; round++)
            ASSERT_EQ(GS_SUCCESS, meet(ranks[rank]));
    });
}

} // namespace
