#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace lathe::images {

/// One image of the store as a tar that every tool loads: a docker-archive (`docker load`, manifest.json) and
/// an OCI archive (`podman load`, index.json) in one, as `docker save` writes them today. It is made while it
/// is sent, straight from the store, without a copy in between; layers stay packed as they are. As long as
/// this lives, the image's contents stay in the store. Used by one thread; must not outlive the Images.
class Export {
 public:
  virtual ~Export() = default;
  /// Bytes of the whole tar: for a Content-Length.
  virtual std::uint64_t size() const = 0;
  /// The digest of the configuration ("sha256:…"): the image's id in Docker and Podman after loading.
  virtual const std::string& config_digest() const = 0;
  /// Hands the tar over piece by piece, from its beginning at every call. An error from `sink` ends it and
  /// comes back.
  virtual Result<void> write(const std::function<Result<void>(std::string_view)>& sink) = 0;
  /// The same into a pipe, socket or file, by the kernel where it can.
  virtual Result<void> send(int fd) = 0;
};

}  // namespace lathe::images
