#pragma once

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "base/ids.h"
#include "base/json.h"
#include "base/subprocess.h"
#include "engines/docker/daemon.h"
#include "engines/docker/docker_engine.h"

/// For tests: real daemons of their own, on sockets and in directories of their own, and an image made of
/// Debian's busybox-static.
namespace lathe::engines::testing {

class TestDaemon {
 public:
  enum class Kind { docker, podman };

  /// Starts it and waits until it answers. `live_restore`: Docker's.
  explicit TestDaemon(Kind kind, bool live_restore = true) : kind_(kind), live_restore_(live_restore) {
    std::filesystem::create_directories(folder_);
    std::ofstream(folder_ / "containers.conf")
        << "[engine]\nruntime = \"runc\"\n[containers]\ndefault_ulimits = "
           "[\"nofile=20000:20000\",\"nproc=32768:32768\"]\n";
    start();
  }
  ~TestDaemon() {
    stop();
    end_what_it_left();
    // What a killed daemon had mounted.
    const auto cleaned = run_command({.argv = {"umount", "-R", "-l", folder_}, .timeout = Duration{10'000}});
    (void)cleaned.ok();
    std::ifstream mounts("/proc/self/mounts");
    std::vector<std::string> below;
    for (std::string device, point, rest; mounts >> device >> point && std::getline(mounts, rest);)
      if (point.starts_with(folder_.string())) below.push_back(point);
    for (auto it = below.rbegin(); it != below.rend(); ++it)
      (void)run_command({.argv = {"umount", "-l", *it}, .timeout = Duration{10'000}}).ok();
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  TestDaemon(const TestDaemon&) = delete;
  TestDaemon& operator=(const TestDaemon&) = delete;

  std::string socket() const { return folder_ / "api.sock"; }
  Daemon api() const { return Daemon(socket()); }

  void start() {
    std::filesystem::remove(socket());
    std::vector<std::string> argv;
    if (kind_ == Kind::docker) {
      // After a kill -9 it finds its own pid file and thinks that it runs.
      std::filesystem::remove(folder_ / "pid");
      argv = {"dockerd",   "--data-root",       folder_ / "data", "--exec-root",      folder_ / "exec",
              "--pidfile", folder_ / "pid",     "--bridge=none",  "--iptables=false", "--ip6tables=false",
              "-H",        "unix://" + socket()};
      if (live_restore_) argv.emplace_back("--live-restore");
    } else {
      argv = {"podman",
              "--root",
              folder_ / "data",
              "--runroot",
              folder_ / "run",
              "--tmpdir",
              folder_ / "tmp",
              "system",
              "service",
              "--time",
              "0",
              "unix://" + socket()};
    }
    spawn(std::move(argv));
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!api().about().ok()) {
      if (std::chrono::steady_clock::now() > deadline || !alive())
        throw std::runtime_error("the daemon does not come up:\n" + log());
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
  /// As an administrator would.
  void stop() {
    if (pid_ == 0 && kind_ == Kind::docker) start();  // its containerd goes only with it
    if (pid_ == 0) return;
    ::kill(pid_, SIGTERM);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (alive() && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    if (alive()) kill();
    pid_ = 0;
  }
  /// kill -9, of the daemon alone: not of what it has started.
  void kill() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
    // Its containerd dies with it, and is taken for alive by the next one as long as it is not quite dead.
    std::string containerd;
    std::ifstream(folder_ / "exec/containerd/containerd.pid") >> containerd;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    while (!containerd.empty() && std::chrono::steady_clock::now() < deadline) {
      std::ifstream stat("/proc/" + containerd + "/stat");
      const std::string text{std::istreambuf_iterator<char>(stat), {}};
      if (text.empty() || text.find(") Z ") != std::string::npos) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    std::filesystem::remove(folder_ / "exec/containerd/containerd.pid");
  }
  /// Stands still from here on, with its connections open.
  void pause() const { ::kill(pid_, SIGSTOP); }
  void resume() const { ::kill(pid_, SIGCONT); }

 private:
  /// A daemon that is killed in the middle of a start leaves the container's shim, and what it has begun.
  void end_what_it_left() const {
    const auto shims = run_command({.argv = {"pgrep", "-f", folder_}, .timeout = Duration{10'000}});
    if (!shims.ok()) return;
    std::istringstream pids(shims->output);
    for (std::string pid; std::getline(pids, pid);) {
      (void)run_command({.argv = {"pkill", "-KILL", "-P", pid}, .timeout = Duration{10'000}}).ok();
      ::kill(std::stoi(pid), SIGKILL);
    }
  }

  bool alive() {
    if (pid_ == 0) return false;
    if (::waitpid(pid_, nullptr, WNOHANG) == 0) return true;
    pid_ = 0;
    return false;
  }

  void spawn(std::vector<std::string> argv) {
    const std::string config = "CONTAINERS_CONF=" + (folder_ / "containers.conf").string();
    std::vector<std::string> env = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + folder_.string(), config};
    std::vector<char*> words, variables;
    for (auto& word : argv) words.push_back(word.data());
    for (auto& variable : env) variables.push_back(variable.data());
    words.push_back(nullptr);
    variables.push_back(nullptr);
    const int output = ::open((folder_ / "log").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::setsid();
      ::prctl(PR_SET_PDEATHSIG, SIGTERM);
      ::dup2(output, 1);
      ::dup2(output, 2);
      if (::chdir(folder_.c_str()) != 0) ::_exit(126);  // where conmon may leave a file
      ::execvpe(words[0], words.data(), variables.data());
      ::_exit(127);
    }
    ::close(output);
  }

  std::string log() const {
    std::ifstream file(folder_ / "log");
    return {std::istreambuf_iterator<char>(file), {}};
  }

  const Kind kind_;
  const bool live_restore_;
  const std::filesystem::path folder_ =
      std::filesystem::temp_directory_path() / ("lathe-daemon-" + random_hex(4));
  pid_t pid_ = 0;
};

/// The test image: busybox, with a variable, an entry point and a health check that nobody wants.
class BusyboxImage {
 public:
  static constexpr const char* kName =
      "sha256:1111111111111111111111111111111111111111111111111111111111111111";

  BusyboxImage() {
    namespace bj = boost::json;
    const std::filesystem::path folder =
        std::filesystem::temp_directory_path() / ("lathe-image-" + random_hex(4));
    const auto root = folder / "root";
    for (const char* each : {"bin", "etc", "dev", "proc", "sys", "tmp", "root", "var"})
      std::filesystem::create_directories(root / each);
    std::filesystem::permissions(root / "tmp",
                                 std::filesystem::perms::all | std::filesystem::perms::sticky_bit);
    std::filesystem::permissions(root / "root", std::filesystem::perms::owner_all);
    std::filesystem::copy_file("/bin/busybox", root / "bin/busybox");
    for (const char* name :
         {"sh",    "cat",  "cut",  "chmod", "echo",  "env",    "false", "grep",    "head", "hostname",
          "id",    "kill", "ls",   "mkdir", "mount", "printf", "pwd",   "rm",      "seq",  "setsid",
          "sleep", "sort", "tail", "test",  "touch", "tr",     "true",  "unshare", "wc",   "yes"})
      std::filesystem::create_symlink("busybox", root / "bin" / name);
    std::ofstream(root / "etc/passwd") << "root:x:0:0:root:/root:/bin/sh\n";
    tar(root, folder / "layer.tar");
    const std::string layer = digest(folder / "layer.tar");
    bj::object process{
        {"Env", bj::array{bj::value("PATH=/bin"), bj::value("FROM_IMAGE=yes")}},
        {"Entrypoint", bj::array{bj::value("/no/such/entrypoint")}},
        {"Healthcheck", bj::object{{"Test", bj::array{bj::value("CMD"), bj::value("false")}}}}};
    bj::array layers;
    layers.emplace_back("sha256:" + layer);
    std::ofstream(folder / "config.json") << json::print(
        bj::object{{"architecture", "amd64"},
                   {"os", "linux"},
                   {"config", std::move(process)},
                   {"rootfs", bj::object{{"type", "layers"}, {"diff_ids", std::move(layers)}}}});
    id_ = digest(folder / "config.json");
    bj::array tags, names, images;
    tags.emplace_back("lathe.test/busybox:" + id_.substr(0, 12));
    names.emplace_back("layer.tar");
    images.emplace_back(
        bj::object{{"Config", id_ + ".json"}, {"RepoTags", std::move(tags)}, {"Layers", std::move(names)}});
    std::filesystem::create_directory(folder / "archive");
    std::filesystem::rename(folder / "layer.tar", folder / "archive/layer.tar");
    std::filesystem::rename(folder / "config.json", folder / "archive" / (id_ + ".json"));
    std::ofstream(folder / "archive/manifest.json") << json::print(std::move(images));
    tar(folder / "archive", folder / "image.tar");
    std::ifstream file(folder / "image.tar", std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
    std::filesystem::remove_all(folder);
  }

  /// For DockerEngine::Options.
  Result<ImageTar> find(const std::string& image) const {
    if (image != kName) return not_found({"镜像", "image"}, image);
    return ImageTar{bytes_.size(), "sha256:" + id_,
                    [this](const std::function<Result<void>(std::string_view)>& sink) -> Result<void> {
                      constexpr std::size_t kPiece = 1 << 20;
                      for (std::size_t at = 0; at < bytes_.size(); at += kPiece)
                        TRY(sink(std::string_view(bytes_).substr(at, kPiece)));
                      return {};
                    }};
  }
  const std::string& id() const { return id_; }

 private:
  static void tar(const std::filesystem::path& folder, const std::filesystem::path& into) {
    run({"tar", "-C", folder, "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "--sort=name", "-cf",
         into, "."});
  }
  static std::string digest(const std::filesystem::path& file) {
    return run({"sha256sum", file}).substr(0, 64);
  }
  static std::string run(std::vector<std::string> argv) {
    auto done = run_command({.argv = std::move(argv), .timeout = Duration{60'000}});
    if (!done.ok() || !done->success()) throw std::runtime_error("cannot make the test image");
    return done->output;
  }

  std::string id_, bytes_;
};

/// One for all tests of the program.
inline const BusyboxImage& busybox_image() {
  static const BusyboxImage image;
  return image;
}

inline DockerEngine::Options engine_options(const std::string& state_dir, const TestDaemon& daemon) {
  return {.state_dir = state_dir, .socket = daemon.socket(), .find_image = [](const std::string& image) {
            return busybox_image().find(image);
          }};
}

}  // namespace lathe::engines::testing
