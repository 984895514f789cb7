#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/fields.h"
#include "base/result.h"
#include "gateway/gateway.h"
#include "http/server.h"

namespace lathe::app {

struct TlsConfig {
  std::string certificate, key;  ///< PEM files
};

struct LogConfig {
  std::string level = "info";
  bool access = true;  ///< a line a request
};

/// The store of images, and the registry.
struct ImagesConfig {
  /// What no tag leads to any more, and what was pushed without a manifest, is kept for so long.
  Duration unused_lifetime{std::chrono::hours{24}};
  Duration sweep_interval{std::chrono::hours{1}};
  /// See images::Options.
  std::vector<std::string> registries{"*"}, insecure_registries;
};

struct SessionConfig {
  Duration idle{std::chrono::hours{24}};
  Duration absolute{std::chrono::hours{24 * 30}};
};

/// The trail of who did what.
struct AuditConfig {
  Duration retention{std::chrono::hours{24 * 365}};  ///< 0: for ever
};

/// The daemon that runs images: Docker, or Podman's service.
struct DockerConfig {
  /// Its socket. "": Docker's or Podman's usual one where it is there when the server starts; "none": no
  /// daemon.
  std::string socket;
  std::string gpus = "requests";  ///< how it is asked for GPUs: "requests" (the NVIDIA runtime), "cdi"
  bool read_only_root = false;    ///< jobs cannot write to their images, only to their directories and /tmp
};

/// How jobs and replicas run on this machine.
struct JobsConfig {
  std::int64_t uid = 64646, gid = 64646;  ///< who they run as where the server is root
  std::string network = "host";           ///< or "none"
};

/// What of this machine may be given to jobs and replicas; 0: all there is. More than there is overbooks it.
struct CapacityConfig {
  double cpu = 0, memory_gb = 0;
};

/// Preset algorithms besides the built-in ones.
struct AlgorithmsConfig {
  std::string directory;  ///< of *.yaml, read at start; "": none
};

/// How services scale and change; the defaults are Knative's where it has one.
struct ServingConfig {
  std::string access = "users";  ///< who may create, change and start services: or "administrators" only
  Duration tick{2'000}, stable_window{60'000}, panic_window{6'000}, zero_grace{30'000};
  double utilization = 0.7;
  Duration start_timeout{std::chrono::minutes{30}};
  Duration stall_timeout{60'000}, failing_timeout{60'000};
  Duration drain_timeout{30'000};
  Duration hold_timeout{300'000};
  std::int64_t held_requests = 1'000;
};

/// The configuration of `lathe serve`: a JSON file (comments and trailing commas are welcome), over which the
/// command line's flags win. docs/operations.md explains every key.
struct Config {
  std::string listen = "127.0.0.1:8080";  ///< host:port; port 0: any free one
  std::string data;                       ///< the data directory
  std::string public_url;                 ///< how clients reach the server; empty: as it listens
  std::string time_zone;                  ///< an IANA name; empty: the machine's
  std::optional<TlsConfig> tls;
  LogConfig log;
  SessionConfig sessions;
  AuditConfig audit;
  std::int64_t io_threads = 1;
  http::Limits limits;
  Duration drain_timeout{30'000};  ///< how long requests under way may take to end at a stop
  JobsConfig jobs;
  DockerConfig docker;
  ImagesConfig images;
  AlgorithmsConfig algorithms;
  CapacityConfig capacity;
  ServingConfig serving;
  gateway::Options gateway;
};
void fields(Fields& f, Config& config);

/// Reads a file. Errors name the file, and the key or the position that is wrong; an unknown key is one.
Result<Config> load_config(const std::string& path);
Result<Config> parse_config(std::string_view text);

/// "127.0.0.1:8080", "[::1]:8080", "localhost:0".
struct Address {
  std::string host;
  std::uint16_t port = 0;
};
Result<Address> parse_address(std::string_view text);
/// `http://127.0.0.1:8080`, with the brackets of an IPv6 address.
std::string url_of(const Config& config, const Address& address, std::uint16_t port);

}  // namespace lathe::app
