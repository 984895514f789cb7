#include "gateway/h2_call.h"

#include "http/parser.h"
#include "http/url.h"

namespace lathe::gateway {

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
  // Messages are percent-encoded UTF-8.
  return {{":status", "200"},
          {"content-type", "application/grpc"},
          {"grpc-status", std::to_string(grpc_status_of(error.code))},
          {"grpc-message", http::percent_encode(error.describe(head.language), " !\"#$&'()*+,/:;<=>?@[]")},
          {"x-request-id", head.id}};
}

void H2Call::fail(const Error& error) {
  if (!front) return;
  if (answered) {
    front->reset(front_stream, NGHTTP2_INTERNAL_ERROR);
    return;
  }
  answered = true;
  status = is_grpc(head) ? 200 : http_status(error.code);
  grpc_status = grpc_status_of(error.code);
  front->submit_answer(front_stream, failure_fields(head, error), false);
}

}  // namespace lathe::gateway
