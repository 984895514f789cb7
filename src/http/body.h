#pragma once

#include <memory>
#include <string>

#include "http/channel.h"
#include "http/message.h"
#include "http/parser.h"

namespace lathe::http {

/// Bytes received and not yet taken.
class ReadBuffer {
 public:
  static constexpr std::size_t kIdleBytes = 4 * 1024;

  std::string_view view() const { return {data_.get() + begin_, end_ - begin_}; }
  std::size_t size() const { return end_ - begin_; }
  void consume(std::size_t bytes);
  /// Room for at least one byte, as long as fewer than `limit` are held; empty at the limit.
  std::span<char> prepare(std::size_t limit);
  void commit(std::size_t bytes) { end_ += bytes; }
  /// Moves up to into.size() bytes out.
  std::size_t take(std::span<char> into);
  /// Puts bytes back in front of the rest.
  void put_back(std::string_view bytes);
  /// Gives memory back; keeps the contents.
  void shrink();
  /// If it is empty, gives all memory back, for the next buffer of this thread. For threads that read for
  /// many connections: those that are idle then cost no buffer.
  void release();

 private:
  void resize(std::size_t capacity);
  std::unique_ptr<char[]> data_;
  std::size_t capacity_ = 0, begin_ = 0, end_ = 0;
};

/// What is left of one message's body: counts lengths and takes off the chunks, wherever the bytes come from.
class BodyState {
 public:
  BodyState() = default;
  BodyState(Framing framing, std::uint64_t limit) : framing_(framing), limit_(limit), left_(framing.length) {}

  bool done() const;
  std::optional<std::uint64_t> length() const;
  /// How many of `size` bytes may be read from the socket into the place where the body goes: never beyond
  /// the message's end where that is known.
  std::size_t wanted(std::size_t size) const;
  struct Step {
    std::size_t consumed = 0, produced = 0;
  };
  /// Decodes in place. Errors: invalid_argument (bad chunks), too_large.
  Result<Step> decode(std::span<char> data);
  /// The stream has ended: right only for a body that lasts until then.
  Result<void> ended();

 private:
  Framing framing_;
  std::uint64_t limit_ = 0, left_ = 0, total_ = 0;
  ChunkDecoder chunks_;
  bool closed_ = false;
};

/// A message's body read from a channel by blocking calls.
class ChannelBody final : public BodyReader {
 public:
  /// `before_first` (may be empty) is sent when the body is first asked for: 100 Continue. Everything must
  /// outlive the reader.
  ChannelBody(Channel& channel, ReadBuffer& buffer, BodyState& state, std::string_view before_first)
      : channel_(channel), buffer_(buffer), state_(state), before_first_(before_first) {}
  Result<std::size_t> read(std::span<char> into) override;
  std::optional<std::uint64_t> length() const override { return state_.length(); }

  bool awaits_permission() const { return !before_first_.empty(); }
  const std::optional<Error>& error() const { return error_; }
  /// Bytes taken from the channel.
  std::uint64_t received() const { return received_; }

 private:
  Result<std::size_t> read_some(std::span<char> into);
  Channel& channel_;
  ReadBuffer& buffer_;
  BodyState& state_;
  std::string_view before_first_;
  std::optional<Error> error_;
  std::uint64_t received_ = 0;
};

}  // namespace lathe::http
