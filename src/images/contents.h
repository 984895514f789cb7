#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "images/blob_store.h"

namespace lathe::images {

/// What a manifest stands for in the store.
struct Contents {
  enum class Kind {
    image,     ///< an image that can be run
    index,     ///< several of them, by platform
    artifact,  ///< anything else: signatures, charts, models
  };
  Kind kind = Kind::image;
  std::string media_type;
  Blob manifest;
  std::string config_digest;  ///< of an image or artifact; empty for an index
  std::vector<Blob>
      blobs;  ///< every one it needs itself: the manifest, the configuration, layers, or manifests
  std::uint64_t size = 0;  ///< of all of them
  std::string artifact_type;
  std::string subject;  ///< the digest of the manifest that this one refers to; empty: none
  Json annotations;     ///< null or an object of strings
};

}  // namespace lathe::images
