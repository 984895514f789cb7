#pragma once

#include "files/resumable.h"
#include "http/api.h"

namespace lathe::files {

class FilesService;

/// /api/v1/uploads: tus 1.0 with creation, creation-with-upload, termination, checksum and expiration.
void add_resumable_routes(http::Api& api, FilesService& files, Resumable& uploads);

}  // namespace lathe::files
