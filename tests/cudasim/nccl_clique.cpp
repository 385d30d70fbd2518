/* How the ranks' calls meet. The last rank to arrive checks that all calls agree and moves everyone's data.
 *
 * CUDASIM_NCCL_TIMEOUT=SECONDS bounds every wait for peers (60).
 */
#include "nccl_clique.h"

#include "nccl_reduce.h"

#include <chrono>
#include <cstdlib>
#include <cstring>

namespace cudasim
{

namespace
{

const char *const kindNames[] = {"AllReduce", "Reduce", "ReduceScatter", "AllGather", "Broadcast", "Send", "Recv"};

double timeoutSeconds()
{
    const char *text = getenv("CUDASIM_NCCL_TIMEOUT");
    return text ? atof(text) : 60.0;
}

bool reduces(Kind kind)
{
    return kind == Kind::AllReduce || kind == Kind::Reduce || kind == Kind::ReduceScatter;
}
bool hasRoot(Kind kind)
{
    return kind == Kind::Reduce || kind == Kind::Broadcast;
}

bool agree(const Call &a, const Call &b)
{
    return a.kind == b.kind && a.count == b.count && a.type == b.type && (!reduces(a.kind) || a.op == b.op) &&
           (!hasRoot(a.kind) || a.peer == b.peer);
}

char *at(void *base, size_t offset)
{
    return static_cast<char *>(base) + offset;
}

std::vector<char> reduceAll(const std::vector<CallPointer> &calls, size_t count)
{
    std::vector<const void *> inputs;
    for (const CallPointer &call : calls)
        inputs.push_back(call->send);
    std::vector<char> result(count * widthOf(calls[0]->type));
    reduce(inputs, result.data(), count, calls[0]->type, calls[0]->op);
    return result;
}

void copy(void *to, const void *from, size_t bytes)
{
    if (bytes)
        memmove(to, from, bytes); /* an in-place call may copy a part onto itself */
}

/* Every result is complete before the first is written: calls may be in place. */
void moveData(const std::vector<CallPointer> &calls)
{
    const Call &first = *calls[0];
    const size_t bytes = first.count * widthOf(first.type), ranks = calls.size();
    std::vector<char> result;
    switch (first.kind) {
    case Kind::AllReduce:
        result = reduceAll(calls, first.count);
        for (const CallPointer &call : calls)
            copy(call->recv, result.data(), bytes);
        break;
    case Kind::Reduce:
        result = reduceAll(calls, first.count);
        copy(calls[size_t(first.peer)]->recv, result.data(), bytes);
        break;
    case Kind::ReduceScatter:
        result = reduceAll(calls, first.count * ranks);
        for (size_t rank = 0; rank < ranks; rank++)
            copy(calls[rank]->recv, at(result.data(), rank * bytes), bytes);
        break;
    case Kind::AllGather:
        result.resize(ranks * bytes);
        for (size_t rank = 0; rank < ranks; rank++)
            copy(at(result.data(), rank * bytes), calls[rank]->send, bytes);
        for (const CallPointer &call : calls)
            copy(call->recv, result.data(), ranks * bytes);
        break;
    default:
        result.resize(bytes);
        copy(result.data(), calls[size_t(first.peer)]->send, bytes);
        for (const CallPointer &call : calls)
            copy(call->recv, result.data(), bytes);
    }
}

} // namespace

std::string Call::describe() const
{
    std::string text = "rank " + std::to_string(rank) + ": nccl" + kindNames[int(kind)];
    if (!isPointToPoint())
        text += " number " + std::to_string(number);
    text += " of " + std::to_string(count) + " elements of type " + std::to_string(int(type));
    if (reduces(kind))
        text += ", op " + std::to_string(int(op));
    if (hasRoot(kind))
        text += ", root " + std::to_string(peer);
    if (isPointToPoint())
        text += ", peer " + std::to_string(peer);
    return text;
}

/* Waits for condition; false, with the reason in errorOf(rank), if the communicator fails first or time is up. */
template <typename Condition> bool Clique::waitUntil(std::unique_lock<std::mutex> &lock, int rank, Condition condition)
{
    auto end = std::chrono::system_clock::now() +
               std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::duration<double>(timeoutSeconds()));
    const Member &self = members[size_t(rank)];
    bool inTime = changed.wait_until(lock, end, [&] { return condition() || self.error != ncclSuccess; });
    return inTime && condition();
}

/* Of several errors a rank keeps the first. */
void Clique::fail(ncclResult_t error, const std::string &text)
{
    for (Member &member : members) {
        if (member.error != ncclSuccess)
            continue;
        member.error = error;
        member.text = text;
    }
    meetings.clear();
    transfers.clear();
    changed.notify_all();
}

bool Clique::allJoined() const
{
    for (const Member &member : members)
        if (!member.joined)
            return false;
    return true;
}

ncclResult_t Clique::join(int rank, int device)
{
    std::lock_guard<std::mutex> lock(mutex);
    for (const Member &member : members)
        if (member.joined && member.device == device)
            fail(ncclInvalidUsage, "two ranks on device " + std::to_string(device));
    Member &self = members[size_t(rank)];
    if (self.joined)
        fail(ncclInvalidUsage, "two ranks with number " + std::to_string(rank));
    self.joined = true;
    self.device = device;
    changed.notify_all();
    return self.error;
}

ncclResult_t Clique::waitForAll(int rank)
{
    std::unique_lock<std::mutex> lock(mutex);
    if (!waitUntil(lock, rank, [this] { return allJoined(); }))
        fail(ncclRemoteError, "not all ranks came to make the communicator in time");
    return members[size_t(rank)].error;
}

void Clique::perform(int rank, const std::vector<CallPointer> &calls)
{
    std::unique_lock<std::mutex> lock(mutex);
    for (const CallPointer &call : calls)
        post(call);
    for (const CallPointer &call : calls) {
        if (waitUntil(lock, rank, [&] { return call->finished; }))
            continue;
        fail(ncclRemoteError, "time is up. " + call->describe() + waitingFor(*call));
        return;
    }
}

std::string Clique::waitingFor(const Call &call)
{
    auto meeting = meetings.find(call.number);
    if (call.isPointToPoint() || meeting == meetings.end())
        return {};
    std::string text = "; missing:";
    for (size_t rank = 0; rank < members.size(); rank++)
        if (!meeting->second.calls[rank])
            text += " rank " + std::to_string(rank);
    return text;
}

void Clique::post(const CallPointer &call)
{
    if (members[size_t(call->rank)].error != ncclSuccess)
        return;
    call->isPointToPoint() ? postTransfer(call) : postCollective(call);
}

void Clique::postCollective(const CallPointer &call)
{
    Meeting &meeting = meetings[call->number];
    meeting.calls.resize(members.size());
    meeting.calls[size_t(call->rank)] = call;
    for (const CallPointer &other : meeting.calls)
        if (other && !agree(*other, *call))
            return fail(ncclInvalidUsage, "calls do not match. " + other->describe() + "; " + call->describe());
    for (const CallPointer &other : meeting.calls)
        if (!other)
            return;
    moveData(meeting.calls);
    for (const CallPointer &other : meeting.calls)
        other->finished = true;
    meetings.erase(call->number);
    changed.notify_all();
}

void Clique::postTransfer(const CallPointer &call)
{
    bool sends = call->kind == Kind::Send;
    auto &waiting = transfers[sends ? std::make_pair(call->rank, call->peer) : std::make_pair(call->peer, call->rank)];
    if (waiting.empty() || waiting.front()->kind == call->kind)
        return waiting.push_back(call);
    CallPointer other = waiting.front();
    waiting.pop_front();
    size_t bytes = call->count * widthOf(call->type);
    if (bytes != other->count * widthOf(other->type))
        return fail(ncclInvalidUsage, "calls do not match. " + other->describe() + "; " + call->describe());
    copy(sends ? other->recv : call->recv, sends ? call->send : other->send, bytes);
    call->finished = other->finished = true;
    changed.notify_all();
}

void Clique::postSplit(int rank, uint64_t number, int color, int key)
{
    std::lock_guard<std::mutex> lock(mutex);
    Split &split = splits[number];
    split.choices.push_back({color, key, rank});
    if (split.choices.size() == members.size())
        decide(split);
}

void Clique::decide(Split &split)
{
    std::map<int, std::vector<Split::Choice>> byColor;
    for (const Split::Choice &choice : split.choices)
        byColor[choice.color].push_back(choice);
    for (auto &[color, choices] : byColor) {
        if (color < 0)
            continue;
        std::sort(choices.begin(), choices.end(), [](const Split::Choice &a, const Split::Choice &b) {
            return std::make_pair(a.key, a.rank) < std::make_pair(b.key, b.rank);
        });
        auto part = std::make_shared<Clique>(int(choices.size()));
        for (size_t i = 0; i < choices.size(); i++) {
            part->join(int(i), members[size_t(choices[i].rank)].device);
            split.parts[choices[i].rank] = {part, int(i)};
        }
    }
    split.decided = true;
    changed.notify_all();
}

ncclResult_t Clique::waitForSplit(int rank, uint64_t number, std::shared_ptr<Clique> *part, int *partRank)
{
    std::unique_lock<std::mutex> lock(mutex);
    Split &split = splits[number];
    if (!waitUntil(lock, rank, [&] { return split.decided; })) {
        fail(ncclRemoteError, "not all ranks came to split the communicator in time");
        return members[size_t(rank)].error;
    }
    std::tie(*part, *partRank) = split.parts[rank];
    return ncclSuccess;
}

void Clique::abort(int rank)
{
    std::lock_guard<std::mutex> lock(mutex);
    Member &self = members[size_t(rank)];
    if (self.error == ncclSuccess) {
        self.error = ncclInvalidUsage;
        self.text = "the communicator was aborted";
    }
    fail(ncclRemoteError, "rank " + std::to_string(rank) + " aborted the communicator");
}

ncclResult_t Clique::errorOf(int rank)
{
    std::lock_guard<std::mutex> lock(mutex);
    return members[size_t(rank)].error;
}

const char *Clique::textOf(int rank)
{
    std::lock_guard<std::mutex> lock(mutex);
    return members[size_t(rank)].text.c_str();
}

} // namespace cudasim
