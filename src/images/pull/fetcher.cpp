#include "images/pull/fetcher.h"

// The variadic functions are called through pointers, which its checks of types do not know.
#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>
#include <dlfcn.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <optional>

#include "images/pull/public_address.h"

namespace lathe::images::pull {

namespace {

constexpr std::size_t kMostHeaderBytes = 64 << 10;
constexpr long kBufferBytes = 256 << 10;
constexpr long kConnectSeconds = 15;
constexpr long kStallSeconds = 60;
constexpr long kLeastBytesPerSecond = 10 << 10;

struct Library {
  decltype(&curl_global_init) global_init = nullptr;
  decltype(&curl_easy_init) easy_init = nullptr;
  decltype(&curl_easy_cleanup) easy_cleanup = nullptr;
  decltype(&curl_easy_reset) easy_reset = nullptr;
  decltype(&curl_easy_setopt) easy_setopt = nullptr;
  decltype(&curl_easy_perform) easy_perform = nullptr;
  decltype(&curl_easy_getinfo) easy_getinfo = nullptr;
  decltype(&curl_easy_strerror) easy_strerror = nullptr;
  decltype(&curl_slist_append) slist_append = nullptr;
  decltype(&curl_slist_free_all) slist_free_all = nullptr;

  template <class Function>
  static bool find(void* handle, const char* name, Function& out) {
    out = reinterpret_cast<Function>(::dlsym(handle, name));
    return out != nullptr;
  }
  bool load() {
    for (const char* file : {"libcurl.so.4", "libcurl-gnutls.so.4"}) {
      void* handle = ::dlopen(file, RTLD_NOW | RTLD_LOCAL);
      if (!handle) continue;
      const bool whole =
          find(handle, "curl_global_init", global_init) && find(handle, "curl_easy_init", easy_init) &&
          find(handle, "curl_easy_cleanup", easy_cleanup) && find(handle, "curl_easy_reset", easy_reset) &&
          find(handle, "curl_easy_setopt", easy_setopt) && find(handle, "curl_easy_perform", easy_perform) &&
          find(handle, "curl_easy_getinfo", easy_getinfo) &&
          find(handle, "curl_easy_strerror", easy_strerror) &&
          find(handle, "curl_slist_append", slist_append) &&
          find(handle, "curl_slist_free_all", slist_free_all);
      if (whole && global_init(CURL_GLOBAL_ALL) == CURLE_OK) return true;
    }
    return false;
  }
};

/// Null: there is none.
const Library* library() {
  static Library loaded;
  static const bool there = loaded.load();
  return there ? &loaded : nullptr;
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && std::string_view(" \t\r\n").find(text.back()) != std::string_view::npos)
    text.remove_suffix(1);
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  return text;
}

/// One request under way, as the callbacks see it.
struct Going {
  const Fetcher::Request& request;
  const Fetcher::Sink& sink;
  const std::function<bool()>& go_on;
  Fetcher::Head head{};
  std::size_t header_bytes = 0;
  std::optional<Error> error{};    ///< why a callback ended it
  std::optional<Error> refused{};  ///< of an address; the host may have others that will do
};

std::size_t on_header(char* data, std::size_t, std::size_t size, void* pointer) {
  Going& going = *static_cast<Going*>(pointer);
  const std::string_view line(data, size);
  going.header_bytes += size;
  if (going.header_bytes > kMostHeaderBytes) {
    going.error = Error{Code::too_large, {"响应头过大", "the headers of the answer are too large"}};
    return 0;
  }
  if (line.starts_with("HTTP/")) going.head = {};  // after a 1xx comes another
  const auto colon = line.find(':');
  if (colon != std::string_view::npos)
    going.head.headers.emplace_back(lower(line.substr(0, colon)), trim(line.substr(colon + 1)));
  return size;
}

int on_progress(void* pointer, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return static_cast<Going*>(pointer)->go_on() ? 0 : 1;
}

curl_socket_t on_socket(void* pointer, curlsocktype, curl_sockaddr* address) {
  Going& going = *static_cast<Going*>(pointer);
  if (!going.request.any_address && !is_public(address->addr)) {
    going.refused =
        Error{Code::permission_denied,
              {"该主机的地址不是公网地址，管理员未允许（images.registries）",
               "the host's address is not a public one, and the administrator has not allowed the "
               "host (images.registries)"}};
    return CURL_SOCKET_BAD;
  }
  return ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

Error failure(CURLcode code, const Library& curl) {
  const std::string detail = curl.easy_strerror(code);
  switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
      return {Code::unavailable, {"无法解析主机名", "the host's name cannot be resolved"}};
    case CURLE_COULDNT_CONNECT:
      return {Code::unavailable, {"无法连接", "cannot be connected to"}};
    case CURLE_OPERATION_TIMEDOUT:
      return {Code::unavailable, {"超时无响应", "did not answer in time"}};
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
      return {Code::failed_precondition,
              {"证书无法验证：" + detail, "its certificate cannot be verified: " + detail}};
    case CURLE_ABORTED_BY_CALLBACK:
      return {Code::cancelled, {"已取消", "cancelled"}};
    default:
      return {Code::unavailable, {"连接中断：" + detail, "the connection broke: " + detail}};
  }
}

}  // namespace

struct Fetcher::State {
  const Library& curl;
  CURL* handle;
};

Fetcher::Fetcher(std::unique_ptr<State> state) : state_(std::move(state)) {}

Fetcher::~Fetcher() {
  state_->curl.easy_cleanup(state_->handle);
}

Result<std::unique_ptr<Fetcher>> Fetcher::make() {
  const Library* curl = library();
  CURL* handle = curl ? curl->easy_init() : nullptr;
  if (!handle)
    return Error{Code::failed_precondition,
                 {"服务器未安装 libcurl（Debian 的 libcurl4 包），无法从其他仓库拉取镜像",
                  "the server's machine has no libcurl (Debian's package libcurl4), which pulls images from "
                  "other registries"}};
  return std::unique_ptr<Fetcher>(new Fetcher(std::make_unique<State>(State{*curl, handle})));
}

std::string_view Fetcher::Head::get(std::string_view name) const {
  for (const auto& [key, value] : headers)
    if (key == name) return value;
  return {};
}

Result<Fetcher::Head> Fetcher::get(const Request& request, const Sink& sink,
                                   const std::function<bool()>& go_on) {
  const Library& curl = state_->curl;
  CURL* handle = state_->handle;
  Going going{request, sink, go_on};
  curl_slist* headers = nullptr;
  for (const auto& header : request.headers) headers = curl.slist_append(headers, header.c_str());
  const std::unique_ptr<curl_slist, decltype(curl.slist_free_all)> owned(headers, curl.slist_free_all);

  curl.easy_reset(handle);
  const auto set = [&](CURLoption option, auto value) { curl.easy_setopt(handle, option, value); };
  set(CURLOPT_URL, request.url.c_str());
  set(CURLOPT_HTTPHEADER, headers);
  set(CURLOPT_USERAGENT, "lathe/" LATHE_VERSION);
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_PROXY, "");
  if (const char* authorities = std::getenv("SSL_CERT_FILE")) set(CURLOPT_CAINFO, authorities);
  set(CURLOPT_FOLLOWLOCATION, 0L);
  set(CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
  set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  set(CURLOPT_BUFFERSIZE, kBufferBytes);
  set(CURLOPT_CONNECTTIMEOUT, kConnectSeconds);
  set(CURLOPT_LOW_SPEED_LIMIT, kLeastBytesPerSecond);
  set(CURLOPT_LOW_SPEED_TIME, kStallSeconds);
  set(CURLOPT_OPENSOCKETFUNCTION, &on_socket);
  set(CURLOPT_OPENSOCKETDATA, static_cast<void*>(&going));
  set(CURLOPT_HEADERFUNCTION, &on_header);
  set(CURLOPT_HEADERDATA, static_cast<void*>(&going));
  set(CURLOPT_NOPROGRESS, 0L);
  set(CURLOPT_XFERINFOFUNCTION, &on_progress);
  set(CURLOPT_XFERINFODATA, static_cast<void*>(&going));
  struct Body {
    Going& going;
    const Library& curl;
    CURL* handle;
  } body{going, curl, handle};
  set(CURLOPT_WRITEDATA, static_cast<void*>(&body));
  set(
      CURLOPT_WRITEFUNCTION, +[](char* data, std::size_t, std::size_t size, void* pointer) -> std::size_t {
        Body& b = *static_cast<Body*>(pointer);
        long status = 0;
        b.curl.easy_getinfo(b.handle, CURLINFO_RESPONSE_CODE, &status);
        b.going.head.status = static_cast<int>(status);
        auto taken = b.going.sink(b.going.head, std::string_view(data, size));
        if (taken.ok()) return size;
        b.going.error = std::move(taken).error();
        return size + 1;
      });

  const CURLcode code = curl.easy_perform(handle);
  if (going.error) return *std::move(going.error);
  if (code == CURLE_COULDNT_CONNECT && going.refused) return *std::move(going.refused);
  if (code != CURLE_OK) return failure(code, curl);
  long status = 0;
  curl.easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &status);
  going.head.status = static_cast<int>(status);
  return std::move(going.head);
}

}  // namespace lathe::images::pull
