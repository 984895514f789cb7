#include "http/body.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

namespace lathe::http {

namespace {

/// Of this thread: a buffer is wanted and given back with every request.
thread_local std::vector<std::unique_ptr<char[]>> unused_buffers;
constexpr std::size_t kBuffersKept = 64;

std::unique_ptr<char[]> make_buffer(std::size_t capacity) {
  if (capacity != ReadBuffer::kIdleBytes || unused_buffers.empty())
    return std::make_unique_for_overwrite<char[]>(capacity);
  auto out = std::move(unused_buffers.back());
  unused_buffers.pop_back();
  return out;
}

}  // namespace

void ReadBuffer::consume(std::size_t bytes) {
  begin_ += bytes;
  if (begin_ == end_) begin_ = end_ = 0;
}

void ReadBuffer::resize(std::size_t capacity) {
  auto larger = make_buffer(capacity);
  if (size() > 0) std::memcpy(larger.get(), data_.get() + begin_, size());
  end_ -= begin_;
  begin_ = 0;
  data_ = std::move(larger);
  capacity_ = capacity;
}

std::span<char> ReadBuffer::prepare(std::size_t limit) {
  if (size() >= limit) return {};
  if (end_ == capacity_) {
    if (begin_ > capacity_ / 2) {
      std::memmove(data_.get(), data_.get() + begin_, size());
      end_ -= begin_;
      begin_ = 0;
    } else {
      resize(std::max(kIdleBytes, std::min(capacity_ * 2, limit + begin_)));
    }
  }
  return {data_.get() + end_, std::min(capacity_ - end_, limit - size())};
}

std::size_t ReadBuffer::take(std::span<char> into) {
  const std::size_t bytes = std::min(into.size(), size());
  if (bytes > 0) std::memcpy(into.data(), data_.get() + begin_, bytes);
  consume(bytes);
  return bytes;
}

void ReadBuffer::put_back(std::string_view bytes) {
  if (bytes.empty()) return;
  if (begin_ >= bytes.size()) {
    begin_ -= bytes.size();
    std::memcpy(data_.get() + begin_, bytes.data(), bytes.size());
    return;
  }
  std::string all(bytes);
  all += view();
  begin_ = end_ = 0;
  if (all.size() > capacity_) resize(all.size());
  std::memcpy(data_.get(), all.data(), all.size());
  end_ = all.size();
}

void ReadBuffer::shrink() {
  if (capacity_ > kIdleBytes && size() <= kIdleBytes) resize(kIdleBytes);
}

void ReadBuffer::release() {
  if (size() > 0 || !data_) return;
  if (capacity_ == kIdleBytes && unused_buffers.size() < kBuffersKept)
    unused_buffers.push_back(std::move(data_));
  *this = ReadBuffer();
}

bool BodyState::done() const {
  switch (framing_.kind) {
    case Framing::Kind::none:
      return true;
    case Framing::Kind::length:
      return left_ == 0;
    case Framing::Kind::chunked:
      return chunks_.done();
    case Framing::Kind::until_close:
      return closed_;
  }
  return true;
}

std::optional<std::uint64_t> BodyState::length() const {
  if (framing_.kind == Framing::Kind::none) return 0;
  if (framing_.kind == Framing::Kind::length) return framing_.length;
  return std::nullopt;
}

std::size_t BodyState::wanted(std::size_t size) const {
  if (framing_.kind != Framing::Kind::length) return size;
  return static_cast<std::size_t>(std::min<std::uint64_t>(size, left_));
}

Result<BodyState::Step> BodyState::decode(std::span<char> data) {
  Step step;
  if (framing_.kind == Framing::Kind::chunked) {
    const auto one = chunks_.decode(data.data(), data.size());
    if (chunks_.failed())
      return Error{Code::invalid_argument,
                   {"请求体的分块格式有误", "the body's chunked coding is malformed"}};
    step = {one.consumed, one.produced};
  } else {
    step.consumed = step.produced = wanted(data.size());
    left_ -= framing_.kind == Framing::Kind::length ? step.produced : 0;
  }
  total_ += step.produced;
  if (total_ > limit_)
    return Error{Code::too_large,
                 {"请求体超过 " + std::to_string(limit_) + " 字节的上限",
                  "the body is larger than the limit of " + std::to_string(limit_) + " bytes"}};
  return step;
}

Result<void> BodyState::ended() {
  if (framing_.kind == Framing::Kind::until_close) {
    closed_ = true;
    return {};
  }
  return Error{Code::cancelled, {"连接在请求体结束前断开", "the connection ended before the body did"}};
}

Result<std::size_t> ChannelBody::read(std::span<char> into) {
  if (error_) return *error_;
  auto got = read_some(into);
  if (!got) error_ = got.error();
  return got;
}

Result<std::size_t> ChannelBody::read_some(std::span<char> into) {
  while (!state_.done() && !into.empty()) {
    if (!before_first_.empty()) {
      const std::array<std::string_view, 1> permission{std::exchange(before_first_, {})};
      TRY(channel_.write(permission, false));
    }
    const auto room = into.first(state_.wanted(into.size()));
    std::size_t got = buffer_.take(room);
    if (got == 0) {
      got = TRY(channel_.read(room));
      received_ += got;
      if (got == 0) {
        TRY(state_.ended());
        return std::size_t{0};
      }
    }
    const auto step = TRY(state_.decode(room.first(got)));
    if (step.consumed < got) buffer_.put_back({room.data() + step.consumed, got - step.consumed});
    if (step.produced > 0) return step.produced;
  }
  return std::size_t{0};
}

}  // namespace lathe::http
