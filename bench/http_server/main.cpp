// The HTTP core alone, for comparison with other servers: GET /hello answers a small JSON text, PUT /NAME and
// POST /NAME (multipart) store what is sent below a folder, GET /NAME sends it.
//   bench_http_server PORT FOLDER [IO_THREADS]
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "http/multipart.h"
#include "http/server.h"

namespace {

using namespace lathe::http;

class Store final : public Handler {
 public:
  explicit Store(std::string folder) : folder_(std::move(folder)) {}

  Intake intake(const Request& head) override {
    Intake out;
    out.stream = head.method == Method::put || head.method == Method::post;
    out.max_body = 1ull << 40;
    return out;
  }

  Response handle(Request& request) override {
    if (request.path == "/hello") return Response::json(200, R"({"success":true,"message":"success"})");
    const std::string file = folder_ + request.path;
    if (request.method == Method::put) return answer(request, put(*request.stream, file));
    if (request.method == Method::post) return answer(request, post(request, file));
    const auto fd = own_fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat status {};
    if (*fd < 0 || ::fstat(*fd, &status) != 0) return Response::text(404, "no such file\n");
    Response out;
    out.body = FileBody{fd, 0, static_cast<std::uint64_t>(status.st_size)};
    return out;
  }

  Response failure(const Request&, const lathe::Error& error) override {
    return Response::text(lathe::http_status(error.code), error.describe(lathe::Language::en));
  }

 private:
  Response answer(const Request& request, const lathe::Result<void>& outcome) {
    return outcome ? Response::text(201, "") : failure(request, outcome.error());
  }

  static lathe::Result<void> write_all(int fd, std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t wrote = ::write(fd, bytes.data(), bytes.size());
      if (wrote < 0) return lathe::system_error("write", errno);
      bytes.remove_prefix(static_cast<std::size_t>(wrote));
    }
    return {};
  }

  static lathe::Result<void> put(BodyReader& body, const std::string& file) {
    const auto fd = own_fd(::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    const auto buffer = std::make_unique_for_overwrite<char[]>(kPiece);
    for (;;) {
      const std::size_t got = TRY(body.read({buffer.get(), kPiece}));
      if (got == 0) return {};
      TRY(write_all(*fd, {buffer.get(), got}));
    }
  }

  static lathe::Result<void> post(Request& request, const std::string& file) {
    auto form = TRY(MultipartReader::open(*request.stream, request.headers.get("Content-Type")));
    while (TRY(form.next_part())) {
      const auto fd = own_fd(::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
      for (auto piece = TRY(form.read()); !piece.empty(); piece = TRY(form.read()))
        TRY(write_all(*fd, piece));
    }
    return {};
  }

  static constexpr std::size_t kPiece = 256 * 1024;
  std::string folder_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s PORT FOLDER [IO_THREADS]\n", argv[0]);
    return 2;
  }
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGINT);
  sigaddset(&stop, SIGTERM);
  sigprocmask(SIG_BLOCK, &stop, nullptr);
  Store store(argv[2]);
  ServerOptions options;
  options.port = static_cast<std::uint16_t>(std::atoi(argv[1]));
  options.io_threads = argc > 3 ? static_cast<std::size_t>(std::atoi(argv[3])) : 1;
  options.access_log = false;
  auto server = Server::listen(options, store);
  if (!server) {
    std::fprintf(stderr, "%s\n", server.error().describe(lathe::Language::en).c_str());
    return 1;
  }
  (*server)->start();
  int signal = 0;
  sigwait(&stop, &signal);
  (*server)->drain(std::chrono::seconds(5));
}
