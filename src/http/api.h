#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/json.h"
#include "base/result.h"
#include "http/envelope.h"
#include "http/message.h"

namespace lathe::http {

/// Who may call a route. There is no default: a route that does not say does not compile.
class Access {
 public:
  enum Kind { open, user, admin };
  Access() = delete;
  constexpr Access(Kind kind) : kind_(kind) {}       // NOLINT(google-explicit-constructor)
  constexpr operator Kind() const { return kind_; }  // NOLINT(google-explicit-constructor)

 private:
  Kind kind_;
};

/// Who is asking. Comes from the token and from nothing else.
struct Identity {
  std::string user_id;  ///< empty for an open route called without a token
  std::string user_name;
  bool admin = false;
};

/// One call of a route.
struct Call {
  Request& request;
  Identity caller;
  /// Makes the id of the main thing this call creates. With an Idempotency-Key it is the same id at every
  /// repetition, so that "this id exists already" means "done before".
  std::function<std::string()> new_id;
};

/// What is declared of a route.
struct Route {
  Method method;
  std::string path;  ///< `{name}` captures one segment, `{name...}` the rest; documented paths answer with
                     ///< and without /api
  Access access;
  std::string_view id;       ///< operationId, unique
  std::string_view tag;      ///< the feature
  std::string_view summary;  ///< English, one line
  const Envelope* envelope = &kBare;
  std::string_view success_message = "success";
  int success_status = 200;
  std::string_view section = {};     ///< of the documented API ("4.1"), where it is documented
  std::uint64_t max_body = 1 << 20;  ///< bytes of a body that is read whole
};

/// The routes of the whole platform: an explicit list, filled once at start by every feature's `add_routes`,
/// then read by many threads. Also what the OpenAPI document is made from.
class Api final : public Handler {
 public:
  struct Hooks {
    /// Who holds this token ("" if none was sent)? unauthenticated when it is not valid.
    std::function<Result<Identity>(const Request&)> authenticate;
    IdSource* ids = nullptr;
    /// The id reserved for (user, Idempotency-Key, operation, digest of the request), durable; an error if
    /// the key was used for a different request. Unset: keys are ignored.
    std::function<Result<std::string>(const Identity&, std::string_view key, std::string_view operation,
                                      std::string_view digest)>
        reserve_id;
    /// Told of every answered call: the route's id ("" if none matched), the status, the seconds it took.
    std::function<void(std::string_view route_id, int status, double seconds)> observe;
  };
  explicit Api(Hooks hooks);
  ~Api() override;

  /// A route whose input is a described struct, read from the JSON body (POST, PUT, PATCH), the query, a form
  /// body and the path's captures, and whose output is another. `Handle` is `Result<Out>(Call&, In)`.
  template <class In, class Out, class Handle>
  void add(Route route, Handle handle) {
    auto run = [handle = std::move(handle)](Call& call, const Json& input,
                                            const Envelope& style) -> Result<std::string> {
      In in = TRY(json::read<In>(input));
      Out out = TRY(handle(call, std::move(in)));
      return json::write(out, &style == &kBare ? json::TimeStyle::iso : json::TimeStyle::local);
    };
    add_json(std::move(route), json::schema<In>(), json::schema<Out>(), std::is_same_v<Out, Nothing>,
             std::move(run));
  }

  /// A route that handles the request itself: streams, downloads, pages. With `stream`, the body arrives
  /// through call.request.stream. `request_type` and `answer_type` are media types for the document. Errors
  /// come out in the route's envelope.
  struct RawOptions {
    bool stream = false;
    std::string_view request_type = {};
    std::string_view answer_type = "application/octet-stream";
    Json parameters = {};  ///< the schema of the query and form fields; json::schema<T>()
  };
  void add_raw(Route route, RawOptions options, std::function<Result<Response>(Call&)> handle);

  Intake intake(const Request& head) override;
  Response handle(Request& request) override;
  Response failure(const Request& request, const Error& error, int status) override;

  const std::vector<Route>& routes() const;
  /// OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.0) of every route.
  Json openapi() const;

 private:
  /// The payload as JSON text.
  using Run = std::function<Result<std::string>(Call&, const Json& input, const Envelope&)>;
  void add_json(Route route, Json in, Json out, bool no_payload, Run run);
  struct State;
  std::unique_ptr<State> state_;
};

/// A page of the documented API. T is a described struct.
template <class T>
struct Page {
  std::int64_t pageNum = 1, pageSize = 10, totalPage = 0, total = 0;
  std::vector<T> rows;
};
template <class T>
void fields(Fields& f, Page<T>& page) {
  f.field("pageNum", page.pageNum);
  f.field("pageSize", page.pageSize);
  f.field("totalPage", page.totalPage);
  f.field("total", page.total);
  f.field("rows", page.rows);
}

/// The page asked for: 0 and absent mean page 1 and 10 rows.
struct PageQuery {
  std::int64_t pageNum = 1, pageSize = 10;
  std::int64_t number() const { return pageNum <= 0 ? 1 : pageNum; }
  std::int64_t size() const { return pageSize <= 0 ? 10 : pageSize; }
  std::int64_t offset() const { return (number() - 1) * size(); }
  template <class T>
  Page<T> page(std::int64_t total, std::vector<T> rows) const {
    return {number(), size(), (total + size() - 1) / size(), total, std::move(rows)};
  }
};
inline void fields(Fields& f, PageQuery& q) {
  f.field("pageNum", q.pageNum, {.doc = "页码，从 1 开始", .min = 0, .max = 1e9});
  f.field("pageSize", q.pageSize, {.doc = "每页条数", .min = 0, .max = 500});
}

}  // namespace lathe::http
