#include "http/envelope.h"

#include <fmt/format.h>

#include <boost/json.hpp>

namespace lathe::http {

const Envelope kFileEnvelope{"file", {"errorCode"}, "result", 200, 400};
const Envelope kImageEnvelope{"image", {"errorCode"}, "result", 200, 701};
const Envelope kModelEnvelope{"model", {"code"}, "data", 200, 400};
const Envelope kEvaluationEnvelope{"evaluation", {"code", "status", "state"}, "data", 200, 400};
const Envelope kKernelEnvelope{"kernel", {"returnCode"}, "data", 0, 400};
const Envelope kBare{"bare", {}, {}, 0, 400};

namespace {

namespace bj = boost::json;

std::string wrap(const Envelope& envelope, bool success, int number, std::string_view message,
                 std::string_view payload) {
  std::string out = success ? R"({"success":true)" : R"({"success":false)";
  for (const auto field : envelope.number_fields) out += fmt::format(R"(,"{}":{})", field, number);
  out += fmt::format(R"(,"message":{},"{}":)", bj::serialize(bj::string(message)), envelope.payload_field);
  out += payload.empty() ? "null" : payload;
  out += '}';
  return out;
}

bj::object problem(const Request& request, const Error& error, int status) {
  bj::object out;
  out["type"] = "about:blank";
  out["title"] = name(error.code);
  out["status"] = status;
  out["detail"] = error.describe(request.language);
  out["code"] = name(error.code);
  auto& list = out["violations"].emplace_array();
  for (const auto& violation : error.violations)
    list.push_back(bj::object{{"field", violation.field}, {"message", in(request.language, violation.text)}});
  out["requestId"] = request.id;
  return out;
}

}  // namespace

const Envelope& envelope_for(std::string_view path) {
  if (path.starts_with("/api/") && !path.starts_with("/api/v1/")) path.remove_prefix(4);
  struct Family {
    std::string_view prefix;
    const Envelope* envelope;
  };
  static constexpr Family kFamilies[] = {
      {"/file/", &kFileEnvelope},
      {"/system/config/", &kFileEnvelope},
      {"/resource/configRemake/", &kFileEnvelope},
      {"/docker/image/", &kImageEnvelope},
      {"/model/evaluation/", &kEvaluationEnvelope},
      {"/model/", &kModelEnvelope},
      {"/kernel/", &kKernelEnvelope},
  };
  for (const auto& family : kFamilies)
    if (path.starts_with(family.prefix)) return *family.envelope;
  return kBare;
}

Response success_response(const Envelope& envelope, int status, std::string_view message,
                          std::string payload) {
  if (&envelope == &kBare) {
    if (payload.empty()) return Response{.status = 204, .headers = {}, .body = std::string()};
    return Response::json(status, std::move(payload));
  }
  return Response::json(status, wrap(envelope, true, envelope.success_number, message, payload));
}

Response error_response(const Envelope& envelope, const Request& request, const Error& error, int status) {
  if (status == 0) status = http_status(error.code);
  Response response;
  if (&envelope == &kBare) {
    response = Response::json(status, json::print(problem(request, error, status)));
    response.headers.set("Content-Type", "application/problem+json");
  } else {
    const int number = status == 400 ? envelope.bad_request_number : status;
    response = Response::json(status, wrap(envelope, false, number, error.describe(request.language), {}));
  }
  if (error.retry_after.count() > 0)
    response.headers.set("Retry-After", std::to_string(error.retry_after.count()));
  if (error.code == Code::unauthenticated)
    response.headers.set("WWW-Authenticate", "Bearer");  // RFC 9110 §11.6.1
  return response;
}

Json envelope_schema(const Envelope& envelope, Json payload) {
  if (&envelope == &kBare) return payload;
  bj::object properties;
  properties["success"] = bj::object{{"type", "boolean"}};
  for (const auto field : envelope.number_fields) properties[field] = bj::object{{"type", "integer"}};
  properties["message"] = bj::object{{"type", "string"}};
  properties[envelope.payload_field] = std::move(payload);
  bj::array required;
  for (const auto& property : properties) required.push_back(Json(property.key()));
  return bj::object{
      {"type", "object"}, {"required", std::move(required)}, {"properties", std::move(properties)}};
}

}  // namespace lathe::http
