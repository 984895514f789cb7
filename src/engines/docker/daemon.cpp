#include "engines/docker/daemon.h"

#include <fmt/format.h>

#include <boost/json.hpp>
#include <chrono>
#include <thread>

#include "http/client.h"

namespace lathe::engines {

namespace bj = boost::json;

namespace {

/// Docker 19.03's, and what Podman 4 says it has: everything used here is in it, and newer daemons that drop
/// the old versions still answer it.
constexpr const char* kVersion = "/v1.40";

std::string text_at(const Json& value, std::string_view key) {
  if (!value.is_object()) return {};
  const auto* found = value.as_object().if_contains(key);
  return found && found->is_string() ? std::string(found->as_string()) : std::string{};
}

bool true_at(const Json& value, std::string_view key, bool otherwise) {
  if (!value.is_object()) return otherwise;
  const auto* found = value.as_object().if_contains(key);
  return found && found->is_bool() ? found->as_bool() : otherwise;
}

Error away(const std::string& socket, const Error& why) {
  return {
      Code::unavailable,
      {fmt::format("容器引擎没有应答（{}）：{}", socket, why.describe(Language::zh)),
       fmt::format("the container daemon at {} does not answer: {}", socket, why.describe(Language::en))}};
}

Error refused(int status, const std::string& words) {
  Code code = Code::failed_precondition;
  if (status == 400) code = Code::invalid_argument;
  if (status == 404) code = Code::not_found;
  if (status == 409) code = Code::already_exists;
  if (status >= 500) code = Code::internal;
  return {code, {"容器引擎拒绝：" + words, "the container daemon refuses: " + words}};
}

std::string escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_' || c == '.';
    out += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

/// What a stream of JSON lines says went wrong: it comes with status 200.
std::optional<std::string> trouble_in(std::string_view lines) {
  while (!lines.empty()) {
    const auto end = lines.find('\n');
    const auto line = lines.substr(0, end);
    lines.remove_prefix(end == std::string_view::npos ? lines.size() : end + 1);
    const auto value = json::parse(line);
    if (value.ok())
      if (auto words = text_at(*value, "error"); !words.empty()) return words;
  }
  return std::nullopt;
}

}  // namespace

struct Daemon::Answer {
  int status = 0;
  std::string body;
};

Result<Daemon::Answer> Daemon::call(http::Method method, const std::string& target, const Json* body,
                                    Duration timeout) const {
  http::Client client({.unix_path = socket_}, {.timeout = timeout});
  http::ClientRequest request;
  request.method = method;
  request.target = kVersion + target;
  if (body) {
    request.headers.set("Content-Type", "application/json");
    request.body = json::print(*body);
  }
  auto answer = client.send(request);
  if (!answer.ok()) return away(socket_, answer.error());
  if (answer->status >= 400) {
    const auto said = json::parse(answer->body);
    auto words = said.ok() ? text_at(*said, "message") : answer->body;
    if (answer->status == 503) return away(socket_, {Code::unavailable, {words, words}});
    return refused(answer->status, words);
  }
  return Answer{answer->status, std::move(answer->body)};
}

Result<Daemon::About> Daemon::about() const {
  const Duration soon{10'000};
  const Json version = TRY(json::parse(TRY(call(http::Method::get, "/version", nullptr, soon)).body));
  const Json info = TRY(json::parse(TRY(call(http::Method::get, "/info", nullptr, soon)).body));
  About out;
  out.version = text_at(version, "Version");
  if (version.is_object())
    if (const auto* parts = version.as_object().if_contains("Components"); parts && parts->is_array())
      for (const auto& part : parts->as_array())
        if (text_at(part, "Name") == "Podman Engine") out.podman = true;
  out.live_restore = out.podman || true_at(info, "LiveRestoreEnabled", false);
  out.limits_memory = true_at(info, "MemoryLimit", true);
  out.limits_cpu = true_at(info, "CpuCfsQuota", true);
  out.limits_pids = true_at(info, "PidsLimit", true);
  out.rootless = true_at(info, "Rootless", false);
  if (!info.is_object()) return out;
  if (const auto* options = info.as_object().if_contains("SecurityOptions"); options && options->is_array())
    for (const auto& option : options->as_array()) {
      const std::string_view text = option.is_string() ? std::string_view(option.as_string()) : "";
      out.rootless = out.rootless || text.find("name=rootless") != std::string_view::npos;
      out.remapped = out.remapped || text.find("name=userns") != std::string_view::npos;
      out.selinux = out.selinux || text.find("name=selinux") != std::string_view::npos;
    }
  if (const auto* runtimes = info.as_object().if_contains("Runtimes"); runtimes && runtimes->is_object())
    out.nvidia_runtime = runtimes->as_object().contains("nvidia");
  return out;
}

Result<std::string> Daemon::create(const std::string& name, const Json& body) const {
  const auto answer = TRY(call(http::Method::post, "/containers/create?name=" + escape(name), &body));
  return text_at(TRY(json::parse(answer.body)), "Id");
}

Result<void> Daemon::start(const std::string& container) const {
  TRY(call(http::Method::post, "/containers/" + escape(container) + "/start", nullptr, Duration{300'000}));
  return {};
}

Result<Json> Daemon::inspect(const std::string& container) const {
  const auto answer = TRY(call(http::Method::get, "/containers/" + escape(container) + "/json", nullptr));
  return json::parse(answer.body);
}

Result<void> Daemon::remove(const std::string& container) const {
  // Two who remove it at once get in each other's way, and Podman has many words for it.
  for (int tries = 0;; ++tries) {
    auto removed =
        call(http::Method::del, "/containers/" + escape(container) + "?force=true&v=true", nullptr);
    if (removed.ok() || removed.error().code == Code::not_found) return {};
    if (removed.error().code == Code::unavailable || tries == 20) return std::move(removed).error();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

Result<std::vector<Daemon::Listed>> Daemon::list(const std::string& label, const std::string& value) const {
  const std::string filter = json::print(bj::object{{"label", bj::array{bj::value(label + "=" + value)}}});
  const auto answer =
      TRY(call(http::Method::get, "/containers/json?all=true&filters=" + escape(filter), nullptr));
  const Json found = TRY(json::parse(answer.body));
  std::vector<Listed> out;
  if (!found.is_array()) return out;
  for (const auto& each : found.as_array()) {
    Listed one{text_at(each, "Id"), {}};
    const auto* names = each.is_object() ? each.as_object().if_contains("Names") : nullptr;
    if (names && names->is_array() && !names->as_array().empty() && names->as_array()[0].is_string())
      one.name = names->as_array()[0].as_string();
    if (one.name.starts_with('/')) one.name.erase(0, 1);
    out.push_back(std::move(one));
  }
  return out;
}

Result<std::vector<std::string>> Daemon::image_names(const std::string& prefix) const {
  const Json found = TRY(json::parse(TRY(call(http::Method::get, "/images/json", nullptr)).body));
  std::vector<std::string> out;
  if (!found.is_array()) return out;
  for (const auto& image : found.as_array()) {
    const auto* names = image.is_object() ? image.as_object().if_contains("RepoTags") : nullptr;
    if (!names || !names->is_array()) continue;
    for (const auto& name : names->as_array())
      if (name.is_string() && std::string_view(name.as_string()).starts_with(prefix))
        out.emplace_back(name.as_string());
  }
  return out;
}

Result<void> Daemon::remove_image(const std::string& name) const {
  auto removed = call(http::Method::del, "/images/" + escape(name), nullptr, Duration{300'000});
  if (removed.ok() || removed.error().code == Code::not_found) return {};
  return std::move(removed).error();
}

Result<bool> Daemon::has_image(const std::string& id) const {
  auto found = call(http::Method::get, "/images/" + escape(id) + "/json", nullptr);
  if (found.ok()) return true;
  if (found.error().code == Code::not_found) return false;
  return std::move(found).error();
}

Result<void> Daemon::load(std::uint64_t size, const std::function<Result<void>(const Sink&)>& write) const {
  // The daemon unpacks for a long time after the last byte.
  http::Client client({.unix_path = socket_}, {.timeout = Duration{1'800'000}});
  http::ClientRequest request;
  request.method = http::Method::post;
  request.target = std::string(kVersion) + "/images/load?quiet=true";
  request.headers.set("Content-Type", "application/x-tar");
  request.headers.set("Content-Length", std::to_string(size));
  std::optional<Error> unreadable;  // the image's own trouble, not the connection's
  request.body = http::StreamBody([&](http::BodyWriter& out) {
    bool broken = false;
    auto written = write([&](std::string_view piece) {
      auto sent = out.write(piece);
      broken = broken || !sent.ok();
      return sent;
    });
    if (!written.ok() && !broken) unreadable = std::move(written).error();
  });
  auto answer = client.send(request);
  if (unreadable) return *unreadable;
  if (!answer.ok()) return away(socket_, answer.error());
  if (answer->status >= 400) {
    const auto said = json::parse(answer->body);
    return refused(answer->status, said.ok() ? text_at(*said, "message") : answer->body);
  }
  if (auto words = trouble_in(answer->body)) return refused(400, *words);
  return {};
}

}  // namespace lathe::engines
