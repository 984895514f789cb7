#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"

/// The little the gateway knows of the OpenAI API (https://platform.openai.com/docs/api-reference).
namespace lathe::gateway {

/// The value of the top-level member `model` of a JSON object, found without building the document. Nothing
/// if there is none, if it is not a string, or if the text is broken before it.
std::optional<std::string> find_model(std::string_view json);

/// An error in OpenAI's form.
std::string openai_error(const Error& error, Language language, std::string_view param = {});

}  // namespace lathe::gateway
