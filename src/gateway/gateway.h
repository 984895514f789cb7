#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "http/api.h"
#include "http/message.h"
#include "http/server.h"

/// The data plane: routing tables in, proxied bytes and counters out. It knows upstreams, not deployments.
namespace lathe::gateway {

/// A process that answers HTTP/1.1.
struct Upstream {
  std::string id;  ///< of the replica: counters are kept under it for as long as it is routed to
  std::string host;
  std::uint16_t port = 0;
};

struct VersionRoute {
  std::string id;
  int rate = 100;    ///< share of the traffic, relative to the other versions that have upstreams
  std::string path;  ///< prefix under which its upstreams answer: "" or "/a/b"
  std::vector<Upstream> upstreams;  ///< those that are ready
};

struct ServiceRoute {
  std::string id;
  std::string name;   ///< as in /serve/{name}/ and in `model`
  std::string owner;  ///< user id
  std::vector<VersionRoute> versions;
  Text unavailable;  ///< told with 503 while no version has an upstream
};

struct Options {
  std::chrono::milliseconds connect_timeout{2'000};
  std::chrono::milliseconds first_byte_timeout{
      300'000};                                     ///< from the request's last byte to the answer's first
  std::chrono::milliseconds idle_timeout{300'000};  ///< between two bytes of an answer
  std::uint64_t max_model_body =
      64 << 20;  ///< bytes of an OpenAI request, which is read whole to see `model`
};

struct Hooks {
  /// Who is asking; on I/O threads, so answered from memory as a rule.
  std::function<Result<http::Identity>(const http::Request&)> authenticate;
  /// May they call this service?
  std::function<bool(const http::Identity&, const ServiceRoute&)> may_call;
};

/// Since the upstream was first routed to.
struct UpstreamCounters {
  std::string service_id, version_id, upstream_id;
  std::uint64_t requests = 0;
  std::uint64_t failures = 0;  ///< no answer, or a status of 500 and above
  std::uint64_t in_flight = 0;
  std::uint64_t bytes_in = 0, bytes_out = 0;
  double first_byte_seconds = 0;  ///< sum over all requests
};

/// Serves `/serve/{service}/…` (any method, any path), and `/v1/models`, `/v1/chat/completions`,
/// `/v1/completions` and `/v1/embeddings`, where the body's `model` names the service. Safe from any thread.
class Gateway {
 public:
  static std::unique_ptr<Gateway> create(Options options, Hooks hooks);
  virtual ~Gateway() = default;

  /// Replaces the routes, for every request that comes after it. Requests under way go on.
  virtual void set_routes(std::vector<ServiceRoute> services) = 0;
  virtual std::vector<UpstreamCounters> counters() const = 0;
  /// For ServerOptions::io_handler; lives as long as the gateway, which must outlive the server.
  virtual http::IoHandler& io_handler() = 0;
};

}  // namespace lathe::gateway
