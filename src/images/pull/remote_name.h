#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace lathe::images::pull {

/// An image in another registry: `registry.example:5000/team/app:1.0`, or with `@sha256:…`.
struct RemoteName {
  std::string authority;   ///< "registry.example:5000", in lower case
  std::string repository;  ///< "team/app"
  std::string tag;         ///< "latest" where the text says neither tag nor digest
  std::string digest;      ///< "sha256:…"; empty where a tag is meant

  std::string text() const;
  /// What the registry is asked for.
  const std::string& wanted() const { return digest.empty() ? tag : digest; }
};

/// The registry must be named. Errors are about `reference`.
Result<RemoteName> parse_remote(std::string_view text);

/// `host`, `host:port`, `[v6]:port`: nothing that two readers could understand differently.
bool is_authority(std::string_view text);

/// An absolute URL in its parts.
struct Url {
  bool tls = true;
  std::string authority;
  std::string target;  ///< path and query, from the first `/` on

  std::string text() const { return (tls ? "https://" : "http://") + authority + target; }
};
/// http and https only, without a user or a fragment; invalid_argument for anything else.
Result<Url> parse_url(std::string_view text);

/// Which registries may be spoken to, and how.
struct Rules {
  /// Hosts, as `host` (at port 443), `host:port` or `host:*` (at every port), whose addresses may be private;
  /// `*` allows every host besides, at public addresses.
  std::vector<std::string> registries{"*"};
  /// Hosts that speak plain HTTP; their addresses may be private, too. `host` is port 80 here.
  std::vector<std::string> insecure;

  bool may_pull_from(std::string_view authority) const;
  /// `tls` tells the port that is meant where the authority gives none.
  bool any_address(std::string_view authority, bool tls) const;
  bool is_insecure(std::string_view authority) const;
};

}  // namespace lathe::images::pull
