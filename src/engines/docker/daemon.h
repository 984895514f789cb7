#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/json.h"
#include "base/result.h"
#include "http/message.h"

namespace lathe::engines {

/// A daemon that speaks the Docker Engine API on a Unix socket: Docker, or Podman's service. Every call is a
/// connection of its own and blocks; safe from any thread. Errors: unavailable (it does not answer),
/// not_found, already_exists, invalid_argument, failed_precondition, or internal (status 5xx: its own
/// trouble, or one it has no other word for), each with the daemon's own words.
class Daemon {
 public:
  explicit Daemon(std::string socket) : socket_(std::move(socket)) {}
  const std::string& socket() const { return socket_; }

  struct About {
    bool podman = false;
    std::string version;
    bool rootless = false;  ///< its root is somebody else here
    bool remapped = false;  ///< docker's userns-remap: likewise
    bool selinux = false;
    bool live_restore = true;  ///< containers go on when it is restarted
    bool limits_memory = true, limits_cpu = true, limits_pids = true;
    bool nvidia_runtime = false;
  };
  Result<About> about() const;

  /// Gives the container's id.
  Result<std::string> create(const std::string& name, const Json& body) const;
  Result<void> start(const std::string& container) const;
  Result<Json> inspect(const std::string& container) const;
  /// Kills it if it runs. No error if there is none.
  Result<void> remove(const std::string& container) const;
  struct Listed {
    std::string id;
    std::string name;
  };
  /// All containers, ended ones too, with `label=value`.
  Result<std::vector<Listed>> list(const std::string& label, const std::string& value) const;

  /// The names of all its images that begin with `prefix`.
  Result<std::vector<std::string>> image_names(const std::string& prefix) const;
  /// Takes that name off its image, which goes with the last one; failed_precondition or already_exists while
  /// a container needs it. No error if there is none.
  Result<void> remove_image(const std::string& name) const;
  Result<bool> has_image(const std::string& id) const;
  using Sink = std::function<Result<void>(std::string_view)>;
  /// Loads an archive of `size` bytes, which `write` hands over.
  Result<void> load(std::uint64_t size, const std::function<Result<void>(const Sink&)>& write) const;

 private:
  struct Answer;
  Result<Answer> call(http::Method method, const std::string& target, const Json* body,
                      Duration timeout = Duration{60'000}) const;

  std::string socket_;
};

}  // namespace lathe::engines
