#include "images/registry/place.h"

namespace lathe::images::registry {

namespace {

constexpr std::string_view kRoot = "/v2/";

/// Takes `/MIDDLE/LAST` off the end of `rest`, giving LAST; nothing if the end is not like that.
std::optional<std::string_view> take_end(std::string_view& rest, std::string_view middle) {
  const auto slash = rest.rfind('/');
  if (slash == std::string_view::npos || !rest.substr(0, slash).ends_with(middle)) return std::nullopt;
  const auto last = rest.substr(slash + 1);
  rest = rest.substr(0, slash - middle.size());
  return last;
}

}  // namespace

std::optional<Place> parse_place(std::string_view path) {
  if (path == "/v2" || path == kRoot) return Place{Target::base, {}, {}};
  if (!path.starts_with(kRoot)) return std::nullopt;
  std::string_view rest = path.substr(kRoot.size());
  if (rest == "token") return Place{Target::token, {}, {}};
  if (rest == "_catalog") return Place{Target::catalog, {}, {}};
  const auto at = [&](Target target, std::string_view reference) -> std::optional<Place> {
    if (rest.empty()) return std::nullopt;
    return Place{target, std::string(rest), std::string(reference)};
  };
  if (const auto last = take_end(rest, "/tags")) return *last == "list" ? at(Target::tags, {}) : std::nullopt;
  if (const auto last = take_end(rest, "/blobs/uploads"))
    return last->empty() ? at(Target::uploads, {}) : at(Target::upload, *last);
  if (const auto last = take_end(rest, "/blobs"))
    return at(*last == "uploads" ? Target::uploads : Target::blob, *last);
  if (const auto last = take_end(rest, "/manifests")) return at(Target::manifest, *last);
  if (const auto last = take_end(rest, "/referrers")) return at(Target::referrers, *last);
  return std::nullopt;
}

}  // namespace lathe::images::registry
