#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.h"

namespace lathe::http {

enum class Method { get, head, post, put, patch, del, options, other };
std::string_view name(Method method);  ///< "GET", …; `other` is ""
/// Methods are case-sensitive (RFC 9110 §9.1): what is not exactly one of the above is `other`.
Method method_named(std::string_view text);

/// Names are case-insensitive and keep their order; a name may appear several times.
class Headers {
 public:
  void add(std::string name, std::string value) { list_.emplace_back(std::move(name), std::move(value)); }
  void reserve(std::size_t count) { list_.reserve(count); }
  void set(std::string name, std::string value);
  /// The first value of that name; "" if there is none. Lives as long as the Headers, unchanged.
  std::string_view get(std::string_view name) const;
  bool has(std::string_view name) const;
  void remove(std::string_view name);
  const std::vector<std::pair<std::string, std::string>>& list() const { return list_; }

 private:
  std::vector<std::pair<std::string, std::string>> list_;
};

/// Room that suits a body on its way to the disk: in larger steps a file system's work for each byte is less.
constexpr std::size_t kBodyPiece = 512 * 1024;

/// The body of a request, while it arrives. Blocks the calling (worker) thread; used by one thread.
class BodyReader {
 public:
  virtual ~BodyReader() = default;
  /// Reads at least one byte into `into`; 0 is the end. Errors: cancelled (the client left),
  /// deadline_exceeded (it stalled), too_large, invalid_argument (bad framing).
  virtual Result<std::size_t> read(std::span<char> into) = 0;
  /// What Content-Length said; nothing for a chunked body.
  virtual std::optional<std::uint64_t> length() const = 0;
};

/// The body of an answer, while it leaves. Blocks the calling (worker) thread; used by one thread.
class BodyWriter {
 public:
  virtual ~BodyWriter() = default;
  /// Sends the bytes at once (no buffering). Errors: cancelled when the client has left or stalled.
  virtual Result<void> write(std::string_view bytes) = 0;
  /// True once the client has closed its side or the server drains: a follower should end.
  virtual bool gone() = 0;
};

struct Request {
  Method method = Method::get;
  std::string method_text;  ///< as it came: tells what `other` stands for
  std::string path;         ///< decoded once, without the query; begins with '/'
  std::string raw_target;   ///< as it came
  std::vector<std::pair<std::string, std::string>> query;     ///< decoded
  std::vector<std::pair<std::string, std::string>> captures;  ///< `{name}` parts of the route's path, decoded
  Headers headers;
  std::string body;              ///< whole, unless the route streams it
  BodyReader* stream = nullptr;  ///< set where the route streams its body; lives as long as the handler runs
  std::string peer;              ///< address of the client, without port
  std::string id;                ///< the request's id, in the log and in the X-Request-Id of the answer
  Language language = Language::zh;

  std::string_view capture(std::string_view name) const;
  std::optional<std::string_view> query_value(std::string_view name) const;
};

/// A slice of an open file, sent by the kernel. Owns the descriptor.
struct FileBody {
  std::shared_ptr<const int> fd;  ///< closes itself; see own_fd
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
};
std::shared_ptr<const int> own_fd(int fd);

/// Writes the body piece by piece on a worker thread until it returns; sent chunked, or, where the response's
/// headers have a Content-Length, with that length (writing more is an error, writing less cuts the
/// connection). Not called for HEAD. An exception cuts the connection, so that the client sees a broken body.
using StreamBody = std::function<void(BodyWriter&)>;

/// The server adds Date, Server, X-Request-Id and the framing; Content-Length and Transfer-Encoding set here
/// are ignored, save Content-Length with a StreamBody or as the answer to HEAD. `Connection: close` is kept.
struct Response {
  int status = 200;
  Headers headers;
  std::variant<std::string, FileBody, StreamBody> body;

  static Response text(int status, std::string body, std::string content_type = "text/plain; charset=utf-8");
  static Response json(int status, std::string body);
};

/// What answers requests. Called on worker threads, several at a time; may block.
class Handler {
 public:
  virtual ~Handler() = default;
  /// Called with the head alone, before the body is read: decides how the body is taken.
  struct Intake {
    bool stream = false;               ///< hand the body over as it arrives
    std::uint64_t max_body = 1 << 20;  ///< bytes; more is 413
    std::optional<Response> refuse;    ///< answer this at once instead (401, 404, 405 …)
  };
  /// Runs on an I/O thread: must not block. May throw (500).
  virtual Intake intake(const Request& head) = 0;
  /// Never throws past the server: an exception becomes 500 in the form of `failure`.
  virtual Response handle(Request& request) = 0;
  /// The answer for a request that failed before or while it was handled, or that is malformed: then only
  /// what could be read of it is there, and the path is "-" if that could not. `status` is what to answer
  /// with where HTTP has a more exact one than the error's own, else 0.
  virtual Response failure(const Request& request, const Error& error, int status) = 0;
};

}  // namespace lathe::http
