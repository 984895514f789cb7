#pragma once

#include <boost/json/fwd.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "models/model_folder.h"

/// What the JSON files of a model say, in the many words that they have for it. What is not of the expected
/// kind is passed over.
namespace lathe::models {

/// config.json, as transformers and others write it.
void take_config(const boost::json::object& config, ModelDetails& out);
/// adapter_config.json, as peft writes it.
AdapterDetails take_adapter(const boost::json::object& config);
/// generation_config.json.
GenerationDetails take_generation(const boost::json::object& config);

/// The size of a decoder of the Llama family, whose parts all follow from its configuration; nothing for
/// others.
std::optional<std::int64_t> estimate_parameters(const ModelDetails& details);

/// The first bytes of a text, whole code points only; "" for what is no UTF-8.
std::string shorten(std::string_view text, std::size_t limit = 255);

}  // namespace lathe::models
