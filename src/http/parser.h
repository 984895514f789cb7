#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

/// HTTP/1.1 as bytes (RFC 9112), read strictly: what two implementations could frame differently is refused.
/// No input or output, no allocation beyond the field table; used by the server, the client and proxies.
namespace lathe::http {

struct HeadLimits {
  std::size_t max_bytes = 32 * 1024;
  std::size_t max_fields = 100;
};

/// How the body after a head is delimited.
struct Framing {
  enum class Kind { none, length, chunked, until_close };
  Kind kind = Kind::none;
  std::uint64_t length = 0;  ///< with Kind::length, never 0
};

/// Why a head is refused: the status to answer with, and what is wrong.
struct Refusal {
  int status = 400;
  const char* zh = "";
  const char* en = "";
};

/// Reads one head incrementally. `parse` is given everything received since the head's first byte, at each
/// call some bytes more (and possibly at another address); no byte is looked at twice.
class HeadParser {
 public:
  enum class State { more, done, refused };
  struct Field {
    std::string_view name, value;
  };

  explicit HeadParser(HeadLimits limits) : limits_(limits) {}
  virtual ~HeadParser() = default;

  State parse(std::string_view received);
  virtual void reset();
  /// After `reset`: gives memory back until the next head.
  void give_back() { fields_ = {}; }

  // After `done`; fields after `refused` too, those before what was refused. Views point into the bytes given
  // to the last `parse`.
  std::size_t bytes() const { return line_start_; }  ///< of the head, its last line included
  std::size_t field_count() const { return fields_.size(); }
  Field field(std::size_t index) const;
  int minor_version() const { return minor_version_; }  ///< of HTTP/1.x
  bool connection_close() const { return close_; }
  bool connection_keep_alive() const { return keep_alive_; }

  // After `refused`.
  const Refusal& refusal() const { return refusal_; }

 protected:
  virtual bool start_line(std::string_view line) = 0;
  /// Known fields beyond the framing; false (after `refuse`) ends the parse.
  virtual bool known_field(std::string_view name, std::string_view value) = 0;
  virtual bool complete() = 0;
  bool refuse(int status, const char* zh, const char* en);
  std::string_view view(std::uint32_t offset, std::uint32_t size) const { return {base_ + offset, size}; }
  std::uint32_t offset_of(std::string_view part) const {
    return static_cast<std::uint32_t>(part.data() - base_);
  }

  int minor_version_ = 1;
  bool chunked_ = false;
  std::optional<std::uint64_t> length_;

 private:
  struct Slot {
    std::uint32_t name, name_size, value, value_size;
  };
  void refuse_size();
  bool take_line(std::string_view line);
  bool take_field(std::string_view line);
  bool take_framing_field(std::string_view name, std::string_view value);

  HeadLimits limits_;
  std::vector<Slot> fields_;
  const char* base_ = nullptr;
  std::size_t line_start_ = 0, scanned_ = 0;
  bool started_ = false, finished_ = false, close_ = false, keep_alive_ = false, skipped_line_ = false;
  State state_ = State::more;
  Refusal refusal_;
};

class RequestHeadParser final : public HeadParser {
 public:
  using HeadParser::HeadParser;
  void reset() override;
  std::string_view method() const { return view(method_, method_size_); }
  /// As it came: origin-form, absolute-form (http and https) or `*`. Its characters are not checked beyond
  /// being neither space nor control; see parse_target.
  std::string_view target() const { return view(target_, target_size_); }
  /// The origin-form within the target: an absolute-form's scheme and authority are left out. Also while
  /// there is more to come and after `refused`: "" if that line was not reached.
  std::string_view origin_target() const;
  Framing framing() const;
  bool expects_continue() const { return expect_; }
  bool keep_alive() const { return minor_version() == 1 && !connection_close(); }

 private:
  bool start_line(std::string_view line) override;
  bool known_field(std::string_view name, std::string_view value) override;
  bool complete() override;
  std::uint32_t method_ = 0, method_size_ = 0, target_ = 0, target_size_ = 0, host_ = 0, host_size_ = 0;
  bool has_host_ = false, expect_ = false;
};

class ResponseHeadParser final : public HeadParser {
 public:
  using HeadParser::HeadParser;
  void reset() override;
  int status() const { return status_; }
  std::string_view reason() const { return view(reason_, reason_size_); }
  /// `to_head`: the request's method was HEAD.
  Framing framing(bool to_head) const;
  bool keep_alive() const {
    return minor_version() == 1 ? !connection_close() : connection_keep_alive() && !connection_close();
  }

 private:
  bool start_line(std::string_view line) override;
  bool known_field(std::string_view name, std::string_view value) override;
  bool complete() override { return true; }
  int status_ = 0;
  std::uint32_t reason_ = 0, reason_size_ = 0;
};

/// Takes the chunked coding off a body (RFC 9112 §7.1). Trailers are checked and dropped.
class ChunkDecoder {
 public:
  struct Step {
    std::size_t consumed;  ///< of the input; all of it unless done or failed
    std::size_t produced;  ///< bytes of the body, now at the front of the input
  };
  Step decode(char* data, std::size_t size);
  bool done() const { return state_ == State::done; }
  bool failed() const { return state_ == State::failed; }
  void reset() { *this = ChunkDecoder(); }

 private:
  enum class State {
    size_first,
    size,
    extension,
    size_lf,
    data,
    data_cr,
    data_lf,
    trailer_first,
    trailer_name,
    trailer_value,
    trailer_lf,
    last_lf,
    done,
    failed
  };
  State step(unsigned char c);
  State size_digit(unsigned char c);

  State state_ = State::size_first;
  std::uint64_t left_ = 0;
  std::size_t digits_ = 0, extension_bytes_ = 0, trailer_bytes_ = 0;
};

/// Is `text` a token (RFC 9110 §5.6.2)?
bool is_token(std::string_view text);
/// May `text` stand as a field's value: no control characters but the tab?
bool is_field_value(std::string_view text);
/// Of ASCII letters.
inline bool same_ignoring_case(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i]) continue;
    const char lower = static_cast<char>(a[i] | 0x20);
    if (lower != (b[i] | 0x20) || lower < 'a' || lower > 'z') return false;
  }
  return true;
}

}  // namespace lathe::http
