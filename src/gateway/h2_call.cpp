#include "gateway/h2_call.h"

#include <algorithm>
#include <charconv>

#include "http/parser.h"
#include "http/url.h"

namespace lathe::gateway {

namespace {

using std::chrono::nanoseconds;

constexpr std::size_t kMostDigits = 8;
constexpr std::pair<char, std::int64_t> kUnits[] = {{'n', 1},
                                                    {'u', 1'000},
                                                    {'m', 1'000'000},
                                                    {'S', 1'000'000'000},
                                                    {'M', 60'000'000'000},
                                                    {'H', 3'600'000'000'000}};
constexpr nanoseconds kLongestTimeout = std::chrono::hours{24 * 365};

/// Messages are percent-encoded UTF-8.
H2Fields failure_trailers(const http::Request& head, const Error& error) {
  return {{"grpc-status", std::to_string(grpc_status_of(error.code))},
          {"grpc-message", http::percent_encode(error.describe(head.language), " !\"#$&'()*+,/:;<=>?@[]")}};
}

}  // namespace

std::optional<nanoseconds> grpc_timeout(std::string_view text) {
  if (text.size() < 2 || text.size() > kMostDigits + 1) return std::nullopt;
  std::int64_t count = 0;
  const char* const digits_end = text.data() + text.size() - 1;
  const auto [end, error] = std::from_chars(text.data(), digits_end, count);
  if (error != std::errc{} || end != digits_end || count < 0) return std::nullopt;
  for (const auto& [unit, nanos] : kUnits)
    if (unit == text.back()) return nanoseconds{std::min(count, kLongestTimeout.count() / nanos) * nanos};
  return std::nullopt;
}

std::string grpc_timeout_text(nanoseconds time) {
  std::string out;
  for (const auto& [unit, nanos] : kUnits) {
    out = std::to_string(std::max<std::int64_t>(time.count() / nanos, 0));
    if (out.size() <= kMostDigits) return out += unit;
  }
  return out.substr(0, kMostDigits) + 'H';
}

bool is_grpc(const http::Request& head) {
  return head.headers.get("content-type").starts_with("application/grpc");
}

int grpc_status_of(Code code) {
  switch (code) {
    case Code::invalid_argument:
    case Code::too_large:
      return 3;
    case Code::unauthenticated:
      return 16;
    case Code::permission_denied:
      return 7;
    case Code::not_found:
      return 5;
    case Code::method_not_allowed:
      return 12;
    case Code::already_exists:
      return 6;
    case Code::failed_precondition:
    case Code::unsatisfiable:
      return 9;
    case Code::resource_exhausted:
    case Code::storage_exhausted:
      return 8;
    case Code::unavailable:
      return 14;
    case Code::deadline_exceeded:
      return 4;
    case Code::cancelled:
      return 1;
    case Code::internal:
      return 13;
  }
  return 2;
}

H2Fields failure_fields(const http::Request& head, const Error& error) {
  if (!is_grpc(head)) {
    H2Fields out{{":status", std::to_string(http_status(error.code))}, {"x-request-id", head.id}};
    if (error.code == Code::unavailable) out.emplace_back("retry-after", "1");
    return out;
  }
  H2Fields out{{":status", "200"}, {"content-type", "application/grpc"}, {"x-request-id", head.id}};
  for (auto& field : failure_trailers(head, error)) out.push_back(std::move(field));
  return out;
}

void H2Call::fail(const Error& error) {
  if (!front || down.ended) return;
  down.ended = true;
  grpc_status = grpc_status_of(error.code);
  if (!answered) {
    answered = true;
    status = is_grpc(head) ? 200 : http_status(error.code);
    front->submit_answer(front_stream, failure_fields(head, error), false);
  } else if (is_grpc(head)) {
    down.trailers = failure_trailers(head, error);
    front->resume(front_stream);
  } else {
    front->reset(front_stream, NGHTTP2_INTERNAL_ERROR);
  }
}

}  // namespace lathe::gateway
