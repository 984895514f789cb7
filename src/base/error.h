#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

namespace lathe {

/// A sentence for a person, in the two languages the platform speaks.
struct Text {
  std::string zh;
  std::string en;
};

enum class Language { zh, en };

inline const std::string& in(Language language, const Text& text) {
  return language == Language::zh ? text.zh : text.en;
}

/// The canonical ways in which a request can fail. `http_status` is the only place that knows their numbers.
enum class Code {
  invalid_argument,     ///< 400: a field is wrong; see Error::violations
  unauthenticated,      ///< 401: no token, or one that is not valid
  permission_denied,    ///< 403: known, but not allowed
  not_found,            ///< 404
  method_not_allowed,   ///< 405: the address is right, the method is not
  already_exists,       ///< 409: the name or id is taken
  failed_precondition,  ///< 409: right request, wrong state (in use, already ended, ...)
  too_large,            ///< 413: a limit on the size of the request
  unsatisfiable,        ///< 422: understood, but can never be fulfilled here
  resource_exhausted,   ///< 429: too many, too fast, or over a quota
  unavailable,          ///< 503: try again later
  storage_exhausted,    ///< 507: the storage quota or the disk is full
  deadline_exceeded,    ///< 504
  cancelled,            ///< 499: the caller went away
  internal,             ///< 500: a bug or a broken machine
};

/// The stable machine-readable word for a code, e.g. "invalid_argument".
std::string_view name(Code code);
int http_status(Code code);

/// One wrong field. `field` is its path as the caller wrote it, e.g. `resource[0].cpuNumber`.
struct Violation {
  std::string field;
  Text text;
};

/// Why something did not happen.
struct [[nodiscard]] Error {
  Code code = Code::internal;
  Text message;
  std::vector<Violation> violations = {};
  /// How long to wait before trying again (the Retry-After header); 0 says nothing.
  std::chrono::seconds retry_after{0};

  /// The message followed by every violation, in one language.
  std::string describe(Language language) const;
};

/// The most common error: one field is wrong.
Error invalid_field(std::string field, Text text);
/// `what` names the kind of thing ("model"), `id` the one that was asked for.
Error not_found(Text what, std::string_view id);
/// The same error, said of `field` where it does not say what it is about.
Error about(std::string_view field, Error error);
/// The system call `what` failed with `error_number`; ENOSPC and EDQUOT become storage_exhausted.
Error system_error(std::string_view what, int error_number);

}  // namespace lathe
