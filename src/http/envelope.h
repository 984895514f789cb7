#pragma once

#include <string_view>
#include <vector>

#include "base/json.h"
#include "http/message.h"

namespace lathe::http {

/// How the answers of a family of paths are wrapped (wire contract, "Envelopes").
struct Envelope {
  std::string_view name;
  std::vector<std::string_view> number_fields;  ///< "errorCode", or "code", "status", "state"
  std::string_view payload_field;               ///< "result" or "data"
  int success_number;
  int bad_request_number;
};
extern const Envelope kFileEnvelope;        ///< /api/file/…, /system/config/…, /resource/configRemake/…
extern const Envelope kImageEnvelope;       ///< /docker/image/…: a bad request is 701
extern const Envelope kModelEnvelope;       ///< /model/aiApplication…, /model/modelServer…
extern const Envelope kEvaluationEnvelope;  ///< /model/evaluation/task/…
extern const Envelope kKernelEnvelope;      ///< /kernel/…
/// The project's own API: the bare value on success, application/problem+json (RFC 9457) on failure.
extern const Envelope kBare;

/// The family that an unknown path would belong to.
const Envelope& envelope_for(std::string_view path);

/// `payload` is JSON text; "" is none: 204 without a body of kBare, null in the others.
Response success_response(const Envelope& envelope, int status, std::string_view message,
                          std::string payload);
/// The error in the caller's language, in the family's form, with a true HTTP status: the error's own, or
/// `status` where that is not 0.
Response error_response(const Envelope& envelope, const Request& request, const Error& error, int status = 0);
/// The JSON Schema of a success answer that carries `payload`.
Json envelope_schema(const Envelope& envelope, Json payload);

}  // namespace lathe::http
