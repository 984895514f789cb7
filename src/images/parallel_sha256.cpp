#include "images/parallel_sha256.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

namespace lathe::images {

namespace {

constexpr std::uint64_t kWorthAThread = 2 << 20;
constexpr std::size_t kPiece = 256 << 10;

}  // namespace

struct ParallelSha256::Worker {
  struct Piece {
    std::unique_ptr<char[]> bytes = std::make_unique_for_overwrite<char[]>(kPiece);
    std::size_t size = 0;
  };

  Worker(Sha256& hash, std::size_t most_pieces)
      : hash_(hash), most_pieces_(std::max<std::size_t>(2, most_pieces)), thread_([this] { run(); }) {}

  ~Worker() {
    hand_over();
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  void add(std::string_view bytes) {
    while (!bytes.empty()) {
      if (!filling_) filling_ = next_free();
      const std::size_t n = std::min(bytes.size(), kPiece - filling_->size);
      std::memcpy(filling_->bytes.get() + filling_->size, bytes.data(), n);
      filling_->size += n;
      bytes.remove_prefix(n);
      if (filling_->size == kPiece) hand_over();
    }
  }

 private:
  Piece* next_free() {
    {
      const std::lock_guard lock(mutex_);
      if (free_.empty() && pieces_.size() < most_pieces_) return &pieces_.emplace_back();
    }
    return take(free_);
  }

  void hand_over() {
    if (Piece* piece = std::exchange(filling_, nullptr)) put(full_, piece);
  }

  /// Waits for one; null at the end.
  Piece* take(std::deque<Piece*>& from) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ended_ || !from.empty(); });
    if (from.empty()) return nullptr;
    Piece* piece = from.front();
    from.pop_front();
    return piece;
  }

  void put(std::deque<Piece*>& into, Piece* piece) {
    {
      const std::lock_guard lock(mutex_);
      into.push_back(piece);
    }
    changed_.notify_all();
  }

  void run() {
    while (Piece* piece = take(full_)) {
      hash_.add(std::string_view(piece->bytes.get(), piece->size));
      piece->size = 0;
      put(free_, piece);
    }
  }

  Sha256& hash_;
  const std::size_t most_pieces_;
  std::deque<Piece> pieces_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Piece*> free_, full_;
  Piece* filling_ = nullptr;
  bool ended_ = false;
  std::thread thread_;
};

ParallelSha256::ParallelSha256(std::size_t most_behind) : most_behind_(most_behind) {}
ParallelSha256::~ParallelSha256() = default;

ParallelSha256::ParallelSha256(ParallelSha256&& other) noexcept : most_behind_(other.most_behind_) {
  *this = std::move(other);
}

ParallelSha256& ParallelSha256::operator=(ParallelSha256&& other) noexcept {
  other.settle();  // the thread refers to the other's hash
  settle();
  hash_ = std::move(other.hash_);
  most_behind_ = other.most_behind_;
  total_ = other.total_;
  return *this;
}

void ParallelSha256::add(std::string_view bytes) {
  total_ += bytes.size();
  if (!worker_ && total_ >= kWorthAThread) worker_ = std::make_unique<Worker>(hash_, most_behind_ / kPiece);
  if (worker_) {
    worker_->add(bytes);
  } else {
    hash_.add(bytes);
  }
}

void ParallelSha256::settle() {
  worker_.reset();
}

std::string ParallelSha256::digest() {
  settle();
  return hash_.digest();
}

}  // namespace lathe::images
