#pragma once

#include <optional>
#include <string>
#include <string_view>

/// The addresses below /v2/.
namespace lathe::images::registry {

enum class Target {
  base,       ///< /v2/
  token,      ///< /v2/token
  catalog,    ///< /v2/_catalog
  tags,       ///< /v2/NAME/tags/list
  referrers,  ///< /v2/NAME/referrers/DIGEST
  manifest,   ///< /v2/NAME/manifests/REFERENCE
  blob,       ///< /v2/NAME/blobs/DIGEST
  uploads,    ///< /v2/NAME/blobs/uploads/
  upload,     ///< /v2/NAME/blobs/uploads/ID
};

struct Place {
  Target target = Target::base;
  std::string name;       ///< of the repository: "USER/IMAGE"; unchecked
  std::string reference;  ///< a tag, a digest or an upload's id; unchecked
};

/// Reads a decoded path; nothing if there is no such address. Names may themselves hold "blobs" or "tags":
/// the end of the path decides.
std::optional<Place> parse_place(std::string_view path);

}  // namespace lathe::images::registry
