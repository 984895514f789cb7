#pragma once

#include <memory>
#include <string_view>

#include "images/blob_store.h"
#include "images/export.h"

namespace lathe::images {

/// Images::open_export over a store. invalid_argument for a manifest that is not one image's.
Result<std::unique_ptr<Export>> open_export(BlobStore& store, std::string_view digest, std::string_view name);

}  // namespace lathe::images
