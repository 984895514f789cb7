#include "http/message.h"

#include <unistd.h>

#include <algorithm>

#include "http/parser.h"

namespace lathe::http {

namespace {

constexpr std::pair<Method, std::string_view> kMethods[] = {
    {Method::get, "GET"},     {Method::head, "HEAD"},  {Method::post, "POST"},       {Method::put, "PUT"},
    {Method::patch, "PATCH"}, {Method::del, "DELETE"}, {Method::options, "OPTIONS"},
};

}  // namespace

std::string_view name(Method method) {
  for (const auto& [value, text] : kMethods)
    if (value == method) return text;
  return "";
}

Method method_named(std::string_view text) {
  for (const auto& [value, known] : kMethods)
    if (known == text) return value;
  return Method::other;
}

void Headers::set(std::string name, std::string value) {
  remove(name);
  add(std::move(name), std::move(value));
}

std::string_view Headers::get(std::string_view name) const {
  for (const auto& [key, value] : list_)
    if (same_ignoring_case(key, name)) return value;
  return {};
}

bool Headers::has(std::string_view name) const {
  return std::any_of(list_.begin(), list_.end(),
                     [&](const auto& one) { return same_ignoring_case(one.first, name); });
}

void Headers::remove(std::string_view name) {
  std::erase_if(list_, [&](const auto& one) { return same_ignoring_case(one.first, name); });
}

std::string_view Request::capture(std::string_view name) const {
  for (const auto& [key, value] : captures)
    if (key == name) return value;
  return {};
}

std::optional<std::string_view> Request::query_value(std::string_view name) const {
  for (const auto& [key, value] : query)
    if (key == name) return value;
  return std::nullopt;
}

std::shared_ptr<const int> own_fd(int fd) {
  return {new int(fd), [](const int* held) {
            if (*held >= 0) ::close(*held);
            delete held;
          }};
}

Response Response::text(int status, std::string body, std::string content_type) {
  Response out;
  out.status = status;
  out.headers.add("Content-Type", std::move(content_type));
  out.body = std::move(body);
  return out;
}

Response Response::json(int status, std::string body) {
  return text(status, std::move(body), "application/json");
}

}  // namespace lathe::http
