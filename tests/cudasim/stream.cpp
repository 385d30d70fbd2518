/* The worker behind a stream. CUDASIM_JITTER=MICROSECONDS delays each piece of work by a random time up to that. */
#include "stream.h"

#include <chrono>
#include <cstdlib>
#include <random>
#include <thread>

namespace cudasim
{

namespace
{

void jitter(std::mt19937 &generator)
{
    const char *text = getenv("CUDASIM_JITTER");
    unsigned most = text ? unsigned(strtoul(text, nullptr, 0)) : 0;
    if (most)
        std::this_thread::sleep_for(std::chrono::microseconds(generator() % (most + 1)));
}

} // namespace

std::shared_ptr<Stream> Stream::create(int device, unsigned flags, int priority)
{
    std::shared_ptr<Stream> stream(new Stream(device, flags, priority));
    /* Detached: a worker may be blocked for as long as its peers are, and the process must be able to end. */
    std::thread([stream] { stream->workerMain(); }).detach();
    return stream;
}

Ticket Stream::enqueue(std::function<void()> work)
{
    std::lock_guard<std::mutex> lock(mutex);
    queue.push_back(std::move(work));
    changed.notify_all();
    return {shared_from_this(), ++enqueued};
}

Ticket Stream::last()
{
    std::lock_guard<std::mutex> lock(mutex);
    return {shared_from_this(), enqueued};
}

void Stream::close()
{
    std::lock_guard<std::mutex> lock(mutex);
    closed = true;
    changed.notify_all();
}

void Stream::workerMain()
{
    static std::atomic<unsigned> workers{0};
    std::mt19937 generator(++workers);
    std::unique_lock<std::mutex> lock(mutex);
    for (;;) {
        changed.wait(lock, [this] { return closed || !queue.empty(); });
        if (queue.empty())
            return;
        std::function<void()> work = std::move(queue.front());
        queue.pop_front();
        lock.unlock();
        jitter(generator);
        work();
        work = nullptr; /* its captures die before anyone is told that it is done */
        lock.lock();
        completed++;
        changed.notify_all();
    }
}

void Ticket::wait() const
{
    if (!stream)
        return;
    std::unique_lock<std::mutex> lock(stream->mutex);
    stream->changed.wait(lock, [this] { return stream->completed >= number; });
}

bool Ticket::reached() const
{
    if (!stream)
        return true;
    std::lock_guard<std::mutex> lock(stream->mutex);
    return stream->completed >= number;
}

} // namespace cudasim
