/* A stream: an in-order queue of work on a worker thread of its own, so that a missing event wait is a real race. */
#ifndef CUDASIM_STREAM_H
#define CUDASIM_STREAM_H

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

namespace cudasim
{

class Stream;

/* A point in a stream: reached when everything queued up to it is done. */
struct Ticket {
    std::shared_ptr<Stream> stream;
    uint64_t number = 0;

    void wait() const;
    bool reached() const;
};

class Stream : public std::enable_shared_from_this<Stream>
{
  public:
    static std::shared_ptr<Stream> create(int device, unsigned flags, int priority);

    Ticket enqueue(std::function<void()> work);
    Ticket last();
    /* No more work will come; the worker ends when the queue is empty. */
    void close();

    const int device, priority;
    const unsigned flags;

  private:
    friend struct Ticket;

    Stream(int device, unsigned flags, int priority) : device(device), priority(priority), flags(flags)
    {
    }
    void workerMain();

    std::mutex mutex;
    std::condition_variable changed;
    std::deque<std::function<void()>> queue;
    uint64_t enqueued = 0, completed = 0;
    bool closed = false;
};

} // namespace cudasim

#endif /* CUDASIM_STREAM_H */
