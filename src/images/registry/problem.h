#pragma once

#include <string_view>

#include "base/result.h"
#include "http/message.h"

namespace lathe::images::registry {

/// The answer for an error in the distribution specification's form. What the error is about (the field of
/// its first violation: `name`, `manifest`, `blob`, `upload`, `digest`, `size`) chooses the specification's
/// code. The words are English where the client does not say that it wants others: these clients are
/// programs.
http::Response problem(const http::Request& request, const Error& error);

/// "BLOB_UNKNOWN" and so on.
std::string_view specification_code(const Error& error);

/// An error about something that the specification names.
Error no_repository(std::string_view name);
Error no_manifest(std::string_view reference);
Error no_blob(std::string_view digest);
Error wrong_digest(std::string_view text);
Error wrong_manifest(Text why);
/// A manifest names content that the repository does not have.
Error no_content(std::string_view digest);

}  // namespace lathe::images::registry
