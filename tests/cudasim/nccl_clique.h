/* What the ranks of one communicator share: where their calls meet, and what has gone wrong. */
#ifndef CUDASIM_NCCL_CLIQUE_H
#define CUDASIM_NCCL_CLIQUE_H

#include <nccl.h>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace cudasim
{

enum class Kind { AllReduce, Reduce, ReduceScatter, AllGather, Broadcast, Send, Recv };

/* One rank's part of an operation. `number` counts the collectives of a rank; `peer` is a root or a partner. */
struct Call {
    Kind kind;
    const void *send;
    void *recv;
    size_t count;
    ncclDataType_t type;
    ncclRedOp_t op;
    int peer;
    int rank = 0;
    uint64_t number = 0;
    bool finished = false;

    bool isPointToPoint() const
    {
        return kind == Kind::Send || kind == Kind::Recv;
    }
    std::string describe() const;
};

using CallPointer = std::shared_ptr<Call>;

class Clique
{
  public:
    explicit Clique(int ranks) : members(size_t(ranks))
    {
    }

    int ranks() const
    {
        return int(members.size());
    }
    ncclResult_t join(int rank, int device);
    ncclResult_t waitForAll(int rank);

    /* Posts the calls of one rank and waits until all are finished, the communicator has failed or time is up. */
    void perform(int rank, const std::vector<CallPointer> &calls);

    /* Two steps, so that one thread can take the first for several ranks. The part is null where color is negative. */
    void postSplit(int rank, uint64_t number, int color, int key);
    ncclResult_t waitForSplit(int rank, uint64_t number, std::shared_ptr<Clique> *part, int *partRank);

    /* A rank gives up: its own calls end, and so do those of its peers, as if its process had died. */
    void abort(int rank);
    ncclResult_t errorOf(int rank);
    const char *textOf(int rank);

  private:
    struct Member {
        int device = -1;
        bool joined = false;
        ncclResult_t error = ncclSuccess;
        std::string text;
    };
    struct Meeting {
        std::vector<CallPointer> calls;
    };
    struct Split {
        struct Choice {
            int color, key, rank;
        };
        std::vector<Choice> choices;
        std::map<int, std::pair<std::shared_ptr<Clique>, int>> parts; /* by rank, once everyone has chosen */
        bool decided = false;
    };

    template <typename Condition> bool waitUntil(std::unique_lock<std::mutex> &lock, int rank, Condition condition);
    void fail(ncclResult_t error, const std::string &text);
    void post(const CallPointer &call);
    void postCollective(const CallPointer &call);
    void postTransfer(const CallPointer &call);
    void decide(Split &split);
    bool allJoined() const;
    std::string waitingFor(const Call &call);

    std::mutex mutex;
    std::condition_variable changed;
    std::vector<Member> members;
    std::map<uint64_t, Meeting> meetings;                             /* collectives not yet complete */
    std::map<std::pair<int, int>, std::deque<CallPointer>> transfers; /* unmatched calls, by sender and receiver */
    std::map<uint64_t, Split> splits;
};

} // namespace cudasim

#endif /* CUDASIM_NCCL_CLIQUE_H */
