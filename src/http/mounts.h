#pragma once

#include <string>
#include <vector>

#include "http/message.h"

namespace lathe::http {

/// Gives every request to the handler whose prefix its path has: `/v2` takes `/v2` and `/v2/…`, not `/v20`.
/// For families of paths with a form of their own beside the Api. Filled at start, then read by many threads.
class Mounts final : public Handler {
 public:
  /// What has no prefix goes to `rest`. The handlers must outlive this.
  explicit Mounts(Handler& rest) : rest_(rest) {}
  void add(std::string prefix, Handler& handler) { mounted_.push_back({std::move(prefix), &handler}); }

  Intake intake(const Request& head) override { return of(head).intake(head); }
  Response handle(Request& request) override { return of(request).handle(request); }
  Response failure(const Request& request, const Error& error, int status) override {
    return of(request).failure(request, error, status);
  }

 private:
  struct Mounted {
    std::string prefix;
    Handler* handler;
  };
  Handler& of(const Request& request) const {
    for (const auto& [prefix, handler] : mounted_)
      if (request.path.starts_with(prefix) &&
          (request.path.size() == prefix.size() || request.path[prefix.size()] == '/'))
        return *handler;
    return rest_;
  }

  Handler& rest_;
  std::vector<Mounted> mounted_;
};

}  // namespace lathe::http
