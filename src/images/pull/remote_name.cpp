#include "images/pull/remote_name.h"

#include <algorithm>

#include "images/images.h"
#include "images/reference.h"

namespace lathe::images::pull {

namespace {

constexpr std::size_t kMostUrl = 8192;  // signed addresses of blobs are long

bool is_alnum(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

Error wrong(Text why) {
  return invalid_field("reference", std::move(why));
}

bool is_port(std::string_view text) {
  return !text.empty() && text.size() <= 5 && text.find_first_not_of("0123456789") == std::string_view::npos;
}

std::string_view host_of(std::string_view authority) {
  const auto bracket = authority.find(']');
  const auto colon = authority.find(':', bracket == std::string_view::npos ? 0 : bracket);
  return authority.substr(0, colon);
}

constexpr std::string_view kTlsPort = "443", kPlainPort = "80";

std::string_view port_of(std::string_view authority, std::string_view usual) {
  const auto host = host_of(authority);
  return host.size() < authority.size() ? authority.substr(host.size() + 1) : usual;
}

/// Is one of the entries, whose port is `usual` where they give none, of this host and port?
bool names(const std::vector<std::string>& list, std::string_view usual, std::string_view authority,
           std::string_view port) {
  return std::any_of(list.begin(), list.end(), [&](const std::string& entry) {
    const std::string one = lower(entry);
    const std::string_view entry_port = port_of(one, usual);
    return one != "*" && host_of(one) == host_of(authority) && (entry_port == "*" || entry_port == port);
  });
}

}  // namespace

bool is_authority(std::string_view text) {
  std::string_view host = host_of(text);
  if (text.size() > 255 || host.empty()) return false;
  if (host.size() < text.size() && !is_port(text.substr(host.size() + 1))) return false;
  if (host.front() == '[') {
    const auto inner = host.substr(1, host.size() - 2);
    return host.back() == ']' && !inner.empty() &&
           inner.find_first_not_of("0123456789abcdefABCDEF:.") == std::string_view::npos;
  }
  return is_alnum(host.front()) && std::all_of(host.begin(), host.end(), [](char c) {
           return is_alnum(c) || c == '.' || c == '-' || c == '_';
         });
}

Result<RemoteName> parse_remote(std::string_view text) {
  RemoteName out;
  const auto slash = text.find('/');
  const std::string_view first = text.substr(0, slash);
  const bool is_host = first == "localhost" || first.find_first_of(".:") != std::string_view::npos;
  if (slash == std::string_view::npos || !is_host || !is_authority(first))
    return wrong({"应包含仓库地址，如 registry.example/team/app:1.0",
                  "must name the registry, as in registry.example/team/app:1.0"});
  out.authority = lower(first);
  std::string_view rest = text.substr(slash + 1);
  if (const auto at = rest.find('@'); at != std::string_view::npos) {
    out.digest = rest.substr(at + 1);
    if (!is_digest(out.digest))
      return wrong({"@ 后应为 sha256: 和 64 位小写十六进制数字",
                    "must have sha256: and 64 lower-case digits after @"});
    rest = rest.substr(0, at);
  }
  const auto [name, tag] = split_reference(rest);
  out.repository = name;
  out.tag = tag;
  if (auto why = wrong_name(out.repository)) return wrong(*why);
  if (rest.ends_with(':') || (!out.tag.empty() && wrong_tag(out.tag)))
    return wrong({"标签不合法", "has a tag that cannot be one"});
  if (out.tag.empty() && out.digest.empty()) out.tag = kDefaultTag;
  return out;
}

std::string RemoteName::text() const {
  return authority + "/" + repository + (tag.empty() ? "" : ":" + tag) + (digest.empty() ? "" : "@" + digest);
}

Result<Url> parse_url(std::string_view text) {
  const Error wrong{Code::invalid_argument, {"不是可用的地址", "is not an address that can be used"}};
  Url out;
  const std::string scheme = lower(text.substr(0, text.find(':')));
  if (text.size() > kMostUrl || (scheme != "http" && scheme != "https")) return wrong;
  out.tls = scheme == "https";
  text.remove_prefix(scheme.size());
  if (!text.starts_with("://")) return wrong;
  text.remove_prefix(3);
  const auto end = std::min(text.find_first_of("/?#\\"), text.size());
  out.authority = lower(text.substr(0, end));
  out.target = text.substr(end);
  if (out.target.empty() || out.target.front() == '?') out.target.insert(0, "/");
  const bool plain = std::all_of(out.target.begin(), out.target.end(),
                                 [](char c) { return c > ' ' && c < '\x7f' && c != '#' && c != '\\'; });
  if (!is_authority(out.authority) || !plain) return wrong;
  return out;
}

bool Rules::may_pull_from(std::string_view authority) const {
  return any_address(authority, true) || is_insecure(authority) ||
         std::find(registries.begin(), registries.end(), "*") != registries.end();
}

bool Rules::any_address(std::string_view authority, bool tls) const {
  const std::string_view port = port_of(authority, tls ? kTlsPort : kPlainPort);
  return names(registries, kTlsPort, authority, port) || names(insecure, kPlainPort, authority, port);
}

bool Rules::is_insecure(std::string_view authority) const {
  return names(insecure, kPlainPort, authority, port_of(authority, kPlainPort));
}

}  // namespace lathe::images::pull
