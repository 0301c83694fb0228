// The threads of a block as real threads, for ThreadSanitizer. They are made once and kept.
#pragma once

#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#define __shared__ static

namespace emulation {

constexpr unsigned kMaxThreads = 1024;

[[noreturn]] inline void die(const char* what) {
    std::fprintf(stderr, "CUDA emulation: %s\n", what);
    std::abort();
}

inline thread_local unsigned current;
inline unsigned thread() { return current; }

struct Barrier {
    std::mutex mutex;
    std::condition_variable released;
    unsigned arrived = 0, generation = 0;
    int line = 0;

    void wait(unsigned count, int at) {
        std::unique_lock<std::mutex> lock(mutex);
        if (arrived > 0 && line != at) die("threads wait at different barriers");
        line = at;
        const unsigned mine = generation;
        if (++arrived == count) {
            arrived = 0, ++generation;
            released.notify_all();
            return;
        }
        released.wait(lock, [&] { return generation != mine; });
    }
};

class Team {
public:
    ~Team() {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            ends_ = true;
        }
        changed_.notify_all();
        for (auto& member : members_) member.join();
    }

    void run(unsigned count, const std::function<void()>& work) {
        std::unique_lock<std::mutex> lock(mutex_);
        while (members_.size() < count) {
            const unsigned index = unsigned(members_.size()), seen = turn_;
            members_.emplace_back([this, index, seen] { live(index, seen); });
        }
        work_ = &work, count_ = count, unfinished_ = unsigned(members_.size()), ++turn_;
        changed_.notify_all();
        changed_.wait(lock, [&] { return unfinished_ == 0; });
    }

private:
    void live(unsigned index, unsigned seen) {
        current = index;
        for (;;) {
            std::unique_lock<std::mutex> lock(mutex_);
            changed_.wait(lock, [&] { return ends_ || turn_ != seen; });
            if (ends_) return;
            seen = turn_;
            const bool takes_part = index < count_;
            lock.unlock();
            if (takes_part) (*work_)();
            lock.lock();
            if (--unfinished_ == 0) changed_.notify_all();
        }
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<std::thread> members_;
    const std::function<void()>* work_ = nullptr;
    unsigned count_ = 0, unfinished_ = 0, turn_ = 0;
    bool ends_ = false;
};

inline Team team;

// Run `body` as `count` threads; their order is that of the machine.
template <typename Turns, typename Body>
void run(const Turns&, unsigned count, const Body& body) {
    team.run(count, std::function<void()>(std::cref(body)));
}

}  // namespace emulation
