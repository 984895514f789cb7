#include "app/config.h"

#include <fmt/format.h>

#include <charconv>
#include <fstream>
#include <sstream>

#include "base/handwritten_json.h"

namespace lathe::app {

namespace {

struct Unit {
  std::string_view suffix;
  std::int64_t milliseconds;
};
constexpr Unit kUnits[] = {{"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}, {"d", 86'400'000}};

std::optional<Duration> parse_duration(std::string_view text) {
  std::int64_t count = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (error != std::errc{} || count < 0) return std::nullopt;
  const std::string_view suffix(end, static_cast<std::size_t>(text.data() + text.size() - end));
  for (const Unit& unit : kUnits)
    if (unit.suffix == suffix && count <= (std::int64_t{1} << 50) / unit.milliseconds)
      return Duration{count * unit.milliseconds};
  return std::nullopt;
}

std::string print_duration(Duration duration) {
  const Unit* best = &kUnits[0];
  for (const Unit& unit : kUnits)
    if (duration.count() % unit.milliseconds == 0) best = &unit;
  return fmt::format("{}{}", duration.count() / best->milliseconds, best->suffix);
}

void duration(Fields& f, std::string_view name, Duration& value, std::string_view doc) {
  std::string text = print_duration(value);
  f.field(name, text, {.doc = doc});
  if (!f.reading()) return;
  if (const auto parsed = parse_duration(text)) {
    value = *parsed;
  } else {
    f.refuse(name, {"应为时长，如 500ms、30s、10m、24h、7d",
                    "must be a duration such as 500ms, 30s, 10m, 24h or 7d"});
  }
}

void positive_duration(Fields& f, std::string_view name, Duration& value, std::string_view doc) {
  duration(f, name, value, doc);
  if (f.reading() && value == Duration{0}) f.refuse(name, {"应大于 0", "must be more than 0"});
}

void size(Fields& f, std::string_view name, std::size_t& value, double min, double max) {
  f.field(name, value, {.min = min, .max = max});
}

}  // namespace

void fields(Fields& f, TlsConfig& tls) {
  f.field("certificate", tls.certificate, {.doc = "PEM chain", .required = true, .max_length = 4096});
  f.field("key", tls.key, {.doc = "PEM key", .required = true, .max_length = 4096});
}

void fields(Fields& f, LogConfig& log) {
  f.field("level", log.level, {.one_of = "debug|info|warning|error"});
  f.field("access", log.access, {.doc = "A line a request"});
}

void fields(Fields& f, SessionConfig& sessions) {
  duration(f, "idle", sessions.idle, "A session ends when it is not used for so long");
  duration(f, "absolute", sessions.absolute, "or so long after it began");
}

void fields(Fields& f, AuditConfig& audit) {
  duration(f, "retention", audit.retention, "Entries of the audit trail are kept for so long; 0s: for ever");
}

void fields(Fields& f, JobsConfig& jobs) {
  f.field("uid", jobs.uid,
          {.doc = "User id of jobs, where the server is root", .min = 1, .max = 4294967294.0});
  f.field("gid", jobs.gid, {.min = 1, .max = 4294967294.0});
  f.field("network", jobs.network, {.one_of = "host|none"});
}

void fields(Fields& f, ImagesConfig& images) {
  duration(f, "unusedLifetime", images.unused_lifetime, "What no tag leads to any more is kept for so long");
  duration(f, "sweepInterval", images.sweep_interval, "Between two looks for what nothing needs");
  f.field("registries", images.registries,
          {.doc = "Hosts (port 443; or host:port, host:*) that images may be pulled from, private addresses "
                  "too; *: every host at a public address"});
  f.field("insecureRegistries", images.insecure_registries,
          {.doc = "Such hosts that speak plain HTTP (port 80); private addresses too"});
}

void fields(Fields& f, AlgorithmsConfig& algorithms) {
  f.field("directory", algorithms.directory,
          {.doc = "Folder of further preset algorithms, *.yaml; one with a built-in's id replaces it",
           .max_length = 4096});
}

void fields(Fields& f, CapacityConfig& capacity) {
  f.field("cpu", capacity.cpu, {.doc = "Cores to give out; 0: all", .min = 0, .max = 1e6});
  f.field("memoryGb", capacity.memory_gb, {.doc = "Memory to give out; 0: all", .min = 0, .max = 1e6});
}

void fields(Fields& f, ServingConfig& serving) {
  f.field("access", serving.access,
          {.doc = "Who may create, change and start services", .one_of = "users|administrators"});
  duration(f, "tick", serving.tick, "How often the autoscaler decides");
  duration(f, "stableWindow", serving.stable_window, "The time whose mean load decides");
  duration(f, "panicWindow", serving.panic_window, "The shorter time in which a doubled load overrules it");
  duration(f, "zeroGrace", serving.zero_grace, "After an idle stable window, until a service sleeps");
  f.field("utilization", serving.utilization,
          {.doc = "How much of its threshold a replica is to bear", .min = 0.01, .max = 1});
  duration(f, "startTimeout", serving.start_timeout, "A replica that is not ready by then is replaced");
  duration(f, "stallTimeout", serving.stall_timeout,
           "A replica that fails its health check gets no more requests once those it has made no progress "
           "for so long");
  duration(f, "failingTimeout", serving.failing_timeout,
           "One that is not ready for so long by its health check is replaced");
  duration(f, "drainTimeout", serving.drain_timeout,
           "How long requests may take to end at a replica that goes");
  duration(f, "holdTimeout", serving.hold_timeout, "How long a request waits for a replica to become ready");
  f.field("heldRequests", serving.held_requests,
          {.doc = "So many requests of a service wait at most", .min = 0, .max = 1'000'000});
}

void fields(Fields& f, DockerConfig& docker) {
  f.field("socket", docker.socket,
          {.doc = "Path of Docker's or Podman's socket; empty: the usual ones; none: no daemon",
           .max_length = 4096});
  f.field("gpus", docker.gpus, {.one_of = "requests|cdi"});
  f.field("readOnlyRoot", docker.read_only_root);
}

struct LimitsConfig {
  http::Limits& limits;
};
void fields(Fields& f, LimitsConfig& config) {
  http::Limits& l = config.limits;
  size(f, "maxHeaderBytes", l.max_header_bytes, 1024, 1 << 20);
  size(f, "maxHeaders", l.max_headers, 10, 10'000);
  size(f, "maxConnections", l.max_connections, 10, 1'000'000);
  size(f, "maxWorkers", l.max_workers, 4, 10'000);
  size(f, "maxQueued", l.max_queued, 0, 1'000'000);
  duration(f, "headerTimeout", l.header_timeout, "For the head of a request");
  duration(f, "idleTimeout", l.idle_timeout, "Between requests");
  duration(f, "bodyTimeout", l.body_timeout, "Without a byte of the body");
  duration(f, "writeTimeout", l.write_timeout, "Without a byte of the answer taken");
}

struct GatewayConfig {
  gateway::Options& options;
};
void fields(Fields& f, GatewayConfig& config) {
  gateway::Options& o = config.options;
  positive_duration(f, "connectTimeout", o.connect_timeout, "To connect to a replica");
  positive_duration(f, "firstByteTimeout", o.first_byte_timeout,
                    "From a request's last byte to the first of its answer");
  positive_duration(f, "idleTimeout", o.idle_timeout, "Between two bytes of an answer, or of a request");
  duration(f, "totalTimeout", o.total_timeout, "For a whole answer that is no stream; 0s: none");
  f.field("maxModelBody", o.max_model_body,
          {.doc = "Bytes of an OpenAI request, which is held in memory", .min = 1024, .max = 1LL << 30});
}

void fields(Fields& f, Config& config) {
  f.field("listen", config.listen, {.doc = "host:port"});
  f.field("data", config.data, {.doc = "The data directory", .max_length = 4096});
  f.field("publicUrl", config.public_url, {.doc = "How clients reach the server"});
  f.field("timeZone", config.time_zone, {.doc = "IANA name, such as Asia/Shanghai"});
  f.field("tls", config.tls);
  f.field("log", config.log);
  f.field("sessions", config.sessions);
  f.field("audit", config.audit);
  f.field("ioThreads", config.io_threads, {.min = 1, .max = 64});
  if (f.enter("limits", {}, false)) {
    LimitsConfig limits{config.limits};
    f.visit(limits, {});
    f.leave();
  }
  duration(f, "drainTimeout", config.drain_timeout, "How long requests may take to end at a stop");
  f.field("jobs", config.jobs);
  f.field("docker", config.docker);
  f.field("images", config.images);
  f.field("algorithms", config.algorithms);
  f.field("capacity", config.capacity);
  f.field("serving", config.serving);
  if (f.enter("gateway", {}, false)) {
    GatewayConfig gateway{config.gateway};
    f.visit(gateway, {});
    f.leave();
  }
}

Result<Config> parse_config(std::string_view text) {
  const Json value = TRY(json::parse_handwritten(text));
  Error wrong{Code::invalid_argument, {"配置有误", "invalid configuration"}};
  auto config = json::read<Config>(value);
  if (!config.ok()) wrong.violations = config.error().violations;
  for (auto& unknown :
       json::unknown_keys(value, json::schema<Config>(), {"没有这个配置项", "is not a setting"}))
    wrong.violations.push_back(std::move(unknown));
  if (!wrong.violations.empty()) return wrong;
  return config;
}

Result<Config> load_config(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  if (!file) return system_error("read " + path, errno);
  auto config = parse_config(text.view());
  if (config.ok()) return config;
  Error error = std::move(config).error();
  error.message.zh = path + "：" + error.message.zh;
  error.message.en = path + ": " + error.message.en;
  return error;
}

Result<Address> parse_address(std::string_view text) {
  const Error wrong = invalid_field("listen", {"应为 主机:端口，如 127.0.0.1:8080 或 [::1]:8080",
                                               "must be host:port, such as 127.0.0.1:8080 or [::1]:8080"});
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return wrong;
  Address out;
  std::string_view host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return wrong;
  }
  const auto digits = text.substr(colon + 1);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), out.port);
  if (error != std::errc{} || end != digits.data() + digits.size() || host.empty()) return wrong;
  out.host = host;
  return out;
}

std::string url_of(const Config& config, const Address& address, std::uint16_t port) {
  if (!config.public_url.empty()) return config.public_url;
  const bool v6 = address.host.find(':') != std::string::npos;
  return fmt::format("{}://{}{}{}:{}", config.tls ? "https" : "http", v6 ? "[" : "", address.host,
                     v6 ? "]" : "", port);
}

}  // namespace lathe::app
