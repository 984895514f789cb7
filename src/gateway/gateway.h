#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "gateway/usage_scanner.h"
#include "http/api.h"
#include "http/message.h"
#include "http/server.h"

/// The data plane: routing tables in, proxied bytes and counters out. It knows upstreams, not deployments.
namespace lathe::gateway {

/// A process that answers HTTP/1.1, or gRPC (HTTP/2 in the clear, with prior knowledge).
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
  bool grpc = false;                ///< its upstreams speak HTTP/2 in the clear and no HTTP/1.1
};

/// What becomes of requests while no version has an upstream.
struct Hold {
  std::size_t max_queued = 0;             ///< so many wait at most, 503 beyond; 0: none is held
  std::chrono::milliseconds max_wait{0};  ///< then 503
  std::chrono::seconds retry_after{1};    ///< told with every 503
};

struct ServiceRoute {
  std::string id;
  std::string name;   ///< as in /serve/{name}/ and in `model`
  std::string owner;  ///< user id
  std::vector<VersionRoute> versions;
  Text unavailable;  ///< told with 503 while no version has an upstream
  Hold hold = {};
};

struct Options {
  std::chrono::milliseconds connect_timeout{2'000};
  /// From the request's last byte to the answer's first: a whole generation where it is not streamed. As long
  /// as OpenAI's own clients wait.
  std::chrono::milliseconds first_byte_timeout{600'000};
  std::chrono::milliseconds idle_timeout{300'000};  ///< between two bytes of an answer, or of a request
  /// From the choice of the upstream to the answer's last byte, save for streams, which may last (a gRPC call
  /// may be one once its answer has begun); 0: none.
  std::chrono::milliseconds total_timeout{3'600'000};
  std::uint64_t max_model_body =
      64 << 20;  ///< bytes of an OpenAI request, which is read whole to see `model`
};

struct Hooks {
  /// Who is asking; on I/O threads, so answered from memory as a rule.
  std::function<Result<http::Identity>(const http::Request&)> authenticate;
  /// May they call this service?
  std::function<bool(const http::Identity&, const ServiceRoute&)> may_call;
  /// A request was passed on to this service, with what its answer told of tokens; on I/O threads. May be
  /// unset.
  std::function<void(const http::Request&, const http::Identity&, const std::string& service_id,
                     const Usage&)>
      used = {};
};

/// Upper bounds of the times counted, in seconds.
inline constexpr std::array<double, 15> kTimeBounds{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                                    0.5,   1,      2.5,   5,    10,    30,   120};
/// A histogram: how many lasted no longer than each bound, the ones before it left out; the last had no
/// bound.
struct Times {
  std::array<std::uint64_t, kTimeBounds.size() + 1> counts{};
  double seconds = 0;  ///< the sum
  std::uint64_t total() const;
};

/// All but `in_flight` only grow.
struct Counters {
  std::uint64_t requests = 0;  ///< begun, so arrivals are the difference of two samples
  std::uint64_t failures = 0;  ///< no answer, or a status of 500 and above
  std::uint64_t in_flight = 0;
  /// The requests under way, integrated over time: the difference of two samples divided by the seconds
  /// between them is the exact average concurrency.
  double concurrency_seconds = 0;
  std::uint64_t bytes_in = 0, bytes_out = 0;
  std::uint64_t prompt_tokens = 0, completion_tokens = 0;  ///< where the answers said `usage`
  Times first_byte;  ///< from the choice of the upstream to the first byte of its answer
  Times duration;    ///< to its last
};

/// Kept from when the upstream is first routed to until it is no longer and its last request has ended.
struct UpstreamCounters : Counters {
  std::string service_id, version_id, upstream_id;
  bool draining = false;  ///< no longer routed to
};

/// The sum of a version's upstreams, those that are gone included.
struct VersionCounters : Counters {
  std::string service_id, version_id;
};

struct ServiceCounters {
  std::string service_id;
  std::uint64_t queued = 0;         ///< held now
  std::uint64_t queued_total = 0;   ///< held since the start
  std::uint64_t refused_total = 0;  ///< 503: too many held, held too long, or not to be held
  double queued_seconds = 0;        ///< the held requests, integrated over time
};

/// One moment. Sampling takes microseconds and stops no request.
struct Load {
  std::chrono::steady_clock::time_point at;
  std::vector<ServiceCounters> services;    ///< those routed
  std::vector<VersionCounters> versions;    ///< those routed, and those with requests under way
  std::vector<UpstreamCounters> upstreams;  ///< likewise
};

/// What an upstream is doing.
struct Activity {
  std::uint64_t in_flight = 0;
  std::uint64_t sent = 0;  ///< differs from an earlier one's where something of an answer has come since
};

/// Called on I/O threads: must return at once (set a flag, wake a thread).
struct Events {
  /// A request came for a service without an upstream, and is held if its route says so. Once a request.
  std::function<void(const std::string& service_id)> waiting;
  /// An upstream that is no longer routed to has ended its last request.
  std::function<void(const std::string& upstream_id)> drained;
};

/// Serves `/serve/{service}/…` (any method, any path), gRPC (whose calls name their service by a path below
/// /serve/{service}, by the metadata `lathe-service`, or by the first label of their authority), and
/// `/v1/models`, `/v1/chat/completions`,
/// `/v1/completions` and `/v1/embeddings`, where the body's `model` names the service. Safe from any thread.
class Gateway {
 public:
  static std::unique_ptr<Gateway> create(Options options, Hooks hooks);
  virtual ~Gateway() = default;

  /// Set once, before the first request.
  virtual void listen(Events events) = 0;
  /// Replaces the routes. When it returns, no request is given to an upstream that was taken out; requests
  /// under way go on there, and `drained` tells when the last has ended. Held requests of services that now
  /// have an upstream go on at once; of services that are gone, they are answered 404.
  virtual void set_routes(std::vector<ServiceRoute> services) = 0;
  /// The same for one service, by its id; the others stay as they are.
  virtual void set_route(ServiceRoute service) = 0;
  virtual Load load() const = 0;
  /// Of an upstream that is routed to or draining. With nothing in flight after set_routes has taken it out,
  /// it may be stopped.
  virtual Activity activity(const std::string& upstream_id) const = 0;
  /// For ServerOptions::io_handler; lives as long as the gateway, which must outlive the server.
  virtual http::IoHandler& io_handler() = 0;
};

}  // namespace lathe::gateway
