#include "gateway/openai.h"

#include <boost/json.hpp>

namespace lathe::gateway {

namespace {

/// The end of the JSON string that begins at `at` (a quote), past its closing quote; npos if it does not end.
std::size_t string_end(std::string_view json, std::size_t at) {
  for (++at; at < json.size(); ++at) {
    if (json[at] == '\\') {
      ++at;
    } else if (json[at] == '"') {
      return at + 1;
    }
  }
  return std::string_view::npos;
}

std::size_t skip_space(std::string_view json, std::size_t at) {
  while (at < json.size() && (json[at] == ' ' || json[at] == '\t' || json[at] == '\n' || json[at] == '\r'))
    ++at;
  return at;
}

std::optional<std::string> string_value(std::string_view quoted) {
  boost::system::error_code error;
  const auto value = boost::json::parse(quoted, error);
  if (error || !value.is_string()) return std::nullopt;
  return std::string(value.get_string());
}

}  // namespace

std::optional<std::string> find_model(std::string_view json) {
  std::size_t at = skip_space(json, 0);
  if (at >= json.size() || json[at] != '{') return std::nullopt;
  int depth = 0;
  while (at < json.size()) {
    const char c = json[at];
    if (c == '{' || c == '[') {
      ++depth;
    } else if (c == '}' || c == ']') {
      --depth;
    } else if (c == '"') {
      const std::size_t end = string_end(json, at);
      if (end == std::string_view::npos) return std::nullopt;
      const std::size_t colon = skip_space(json, end);
      const bool is_key = colon < json.size() && json[colon] == ':';
      if (depth == 1 && is_key && json.substr(at, end - at) == "\"model\"") {
        const std::size_t value = skip_space(json, colon + 1);
        if (value >= json.size() || json[value] != '"') return std::nullopt;
        const std::size_t value_end = string_end(json, value);
        if (value_end == std::string_view::npos) return std::nullopt;
        return string_value(json.substr(value, value_end - value));
      }
      at = end;
      continue;
    }
    ++at;
  }
  return std::nullopt;
}

std::string openai_error(const Error& error, Language language, std::string_view param) {
  const int status = http_status(error.code);
  const std::string_view type = status == 401   ? "authentication_error"
                                : status == 403 ? "permission_error"
                                : status == 429 ? "rate_limit_error"
                                : status >= 500 ? "server_error"
                                                : "invalid_request_error";
  boost::json::object inner;
  inner["message"] = error.describe(language);
  inner["type"] = type;
  inner["param"] = param.empty() ? boost::json::value(nullptr) : boost::json::value(param);
  inner["code"] = error.code == Code::not_found && param == "model" ? "model_not_found" : name(error.code);
  boost::json::object out;
  out["error"] = std::move(inner);
  return boost::json::serialize(out);
}

}  // namespace lathe::gateway
