#include "serving/prober.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>

#include "serving/ports.h"

namespace lathe::serving {
namespace {

using Answer = Health::Answer;
using std::chrono::seconds;

/// A socket that listens on a free port, and perhaps answers what it is told.
class Listener {
 public:
  Listener() : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address);
    listen(socket_.get(), 16);
    socklen_t size = sizeof address;
    getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&address), &size);
    port = ntohs(address.sin_port);
  }
  void answer_once(std::string_view text) const {
    const Fd peer(accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    char buffer[1024];
    [[maybe_unused]] const auto got = ::read(peer.get(), buffer, sizeof buffer);
    [[maybe_unused]] const auto put = ::write(peer.get(), text.data(), text.size());
  }
  void close() { socket_.reset(); }
  int port = 0;

 private:
  Fd socket_;
};

/// Waits for what the prober tells.
class Told {
 public:
  std::function<void(const std::string&)> callback() {
    return [this](const std::string&) {
      const std::scoped_lock lock(mutex_);
      ++count_;
      changed_.notify_all();
    };
  }
  bool until(const std::function<bool()>& condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, seconds{20}, condition);
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int count_ = 0;
};

TEST(Prober, TellsWhenAPortBeginsAndCeasesToAccept) {
  Listener listener;
  Told told;
  Prober prober(told.callback());
  EXPECT_EQ(prober.health("r").last, Answer::unknown);
  prober.watch({{"r", "127.0.0.1", listener.port, ""}});
  ASSERT_TRUE(told.until([&] { return prober.health("r").last == Answer::good; }));
  listener.close();
  ASSERT_TRUE(told.until([&] { return prober.health("r").last == Answer::refused; }));
  prober.watch({});
  EXPECT_EQ(prober.health("r").last, Answer::unknown);
}

TEST(Prober, APathIsReadyOnlyWith2xx) {
  const Listener listener;
  Told told;
  Prober prober(told.callback());
  prober.watch({{"r", "127.0.0.1", listener.port, "/health"}});
  listener.answer_once("HTTP/1.1 503 Loading\r\nContent-Length: 0\r\n\r\n");
  ASSERT_TRUE(told.until([&] { return prober.health("r").last == Answer::bad; }));
  EXPECT_EQ(prober.health("r").status, 503);
  listener.answer_once("HTTP/1.0 204 No Content\r\n\r\n");
  ASSERT_TRUE(told.until([&] { return prober.health("r").last == Answer::good; }));
}

TEST(Prober, OneThatDoesNotAnswerHoldsUpNoOther) {
  const Listener silent;
  const Listener quick;
  Told told;
  Prober prober(told.callback());
  prober.watch({{"silent", "127.0.0.1", silent.port, "/health"}, {"quick", "127.0.0.1", quick.port, ""}});
  ASSERT_TRUE(told.until([&] { return prober.health("quick").last == Answer::good; }));
  ASSERT_TRUE(told.until([&] { return prober.health("silent").last == Answer::silent; }));
}

TEST(Ports, NoneIsGivenTwice) {
  const Listener somebody;
  const auto port = static_cast<std::uint16_t>(somebody.port);
  Ports mine("127.0.0.1", port, port), others("127.0.0.1", port, port);
  EXPECT_FALSE(mine.take("a").ok()) << "somebody listens there";
  EXPECT_FALSE(mine.take("a", port).ok());
}

TEST(Ports, TwoServersOnOneMachineDoNotMeet) {
  Listener somebody;
  const auto port = static_cast<std::uint16_t>(somebody.port);
  somebody.close();
  Ports mine("127.0.0.1", port, port), others("127.0.0.1", port, port);
  ASSERT_TRUE(mine.take("a").ok());
  EXPECT_FALSE(others.take("b").ok());
  mine.release("a");
  EXPECT_TRUE(others.take("b").ok());
}

}  // namespace
}  // namespace lathe::serving
