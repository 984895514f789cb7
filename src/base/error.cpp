#include "base/error.h"

#include <cerrno>
#include <cstring>

namespace lathe {

namespace {

struct CodeFacts {
  Code code;
  std::string_view name;
  int http_status;
};

constexpr CodeFacts kCodes[] = {
    {Code::invalid_argument, "invalid_argument", 400},
    {Code::unauthenticated, "unauthenticated", 401},
    {Code::permission_denied, "permission_denied", 403},
    {Code::not_found, "not_found", 404},
    {Code::method_not_allowed, "method_not_allowed", 405},
    {Code::already_exists, "already_exists", 409},
    {Code::failed_precondition, "failed_precondition", 409},
    {Code::too_large, "too_large", 413},
    {Code::unsatisfiable, "unsatisfiable", 422},
    {Code::resource_exhausted, "resource_exhausted", 429},
    {Code::unavailable, "unavailable", 503},
    {Code::storage_exhausted, "storage_exhausted", 507},
    {Code::deadline_exceeded, "deadline_exceeded", 504},
    {Code::cancelled, "cancelled", 499},
    {Code::internal, "internal", 500},
};

const CodeFacts& facts(Code code) {
  for (const auto& row : kCodes)
    if (row.code == code) return row;
  return kCodes[std::size(kCodes) - 1];
}

}  // namespace

std::string_view name(Code code) {
  return facts(code).name;
}
int http_status(Code code) {
  return facts(code).http_status;
}

std::string Error::describe(Language language) const {
  std::string out = in(language, message);
  const bool zh = language == Language::zh;
  const char* separator = zh ? "：" : ": ";
  for (const auto& violation : violations) {
    out += out.empty() ? "" : separator;
    out += violation.field + " " + in(language, violation.text);
    separator = zh ? "；" : "; ";
  }
  return out;
}

Error invalid_field(std::string field, Text text) {
  return {Code::invalid_argument, {"参数有误", "invalid request"}, {{std::move(field), std::move(text)}}};
}

Error not_found(Text what, std::string_view id) {
  return {Code::not_found,
          {what.zh + "不存在：" + std::string(id), "no such " + what.en + ": " + std::string(id)}};
}

Error about(std::string_view field, Error error) {
  if (!error.violations.empty()) return error;
  error.violations.push_back({std::string(field), std::move(error.message)});
  error.message = {};
  return error;
}

Error system_error(std::string_view what, int error_number) {
  if (error_number == ENOSPC || error_number == EDQUOT)
    return {Code::storage_exhausted, {"磁盘空间不足", "no space left on the device"}};
  const std::string detail = std::string(what) + ": " + std::strerror(error_number);
  return {Code::internal, {"系统调用失败：" + detail, detail}};
}

}  // namespace lathe
