#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "base/result.h"

/// Small files that are never seen half written. `folder` is an open directory, `name` a plain name in it.
/// Safe from any thread and between processes.
namespace lathe {

/// Whether the file must still be there after a power failure when the call returns.
enum class Durable { no, yes };

/// Replaces or makes the file: whoever looks sees the old bytes or the new ones.
Result<void> replace_file(int folder, const std::string& name, std::string_view bytes, Durable durable,
                          mode_t mode = 0600);
/// Makes the file with these bytes unless there is one by that name: of all who try, one gets true.
Result<bool> create_file_once(int folder, const std::string& name, std::string_view bytes, Durable durable,
                              mode_t mode = 0600);
/// The whole file; not_found, too_large beyond `limit` bytes.
Result<std::string> read_whole_file(int folder, const std::string& name, std::size_t limit = 64 << 20);

}  // namespace lathe
