#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>

#include "http/message.h"
#include "http/server.h"

/// For tests: a server on a free port, and a client that sends whatever bytes it is told.
namespace lathe::http::testing {

/// Paths choose what happens: /hello (and others) say what was asked, /count streams the body and answers its
/// size, /stream streams an answer, /file sends a slice of a file, /throw throws, … : see testing.cpp.
class TestHandler final : public Handler {
 public:
  TestHandler();
  Intake intake(const Request& head) override;
  Response handle(Request& request) override;
  Response failure(const Request& request, const Error& error, int status) override;

  static std::string file_content();
  /// Lets requests to /wait go on.
  void release();
  /// Waits until that many requests wait in /wait.
  void await_waiting(int count);
  std::atomic<int> followers_begun{0}, followers_ended{0};

 private:
  std::shared_ptr<const int> file_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int waiting_ = 0;
  bool released_ = false;
};

/// Started on a free port of the loopback interface.
class TestServer {
 public:
  explicit TestServer(ServerOptions options = {}, bool access_log = false);
  Server* operator->() { return server_.get(); }
  std::uint16_t port() const { return server_->port(); }
  TestHandler& handler() { return *handler_; }

 private:
  std::unique_ptr<TestHandler> handler_;
  std::unique_ptr<Server> server_;
};

struct Answer {
  int status = 0;  ///< 0: the connection ended, or the answer was malformed
  Headers headers;
  std::string body;
};

/// A raw connection. Waits at most ten seconds for anything.
class Peer {
 public:
  explicit Peer(std::uint16_t port);
  ~Peer();
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;
  /// False if the other side no longer takes it.
  bool send(std::string_view bytes);
  void shutdown_send();
  /// The next answer, 1xx included.
  Answer answer(bool to_head = false);
  /// Waits for the end of the stream; false if bytes come instead.
  bool closed();
  int fd() const { return fd_; }

 private:
  bool fill();
  int fd_;
  std::string received_;
};

/// An unlinked temporary file with that content.
std::shared_ptr<const int> temporary_file(std::string_view content);

}  // namespace lathe::http::testing
