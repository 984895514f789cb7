#include "app/system_routes.h"

#include <memory>
#include <mutex>

#include "app/docs_page.h"
#include "base/json.h"

namespace lathe::app {

namespace {

using http::Access;
using http::Call;
using http::Method;
using http::Response;

struct Document {
  std::once_flag made;
  std::string text;
};

http::Route route(std::string path, Access access, std::string_view id, std::string_view summary) {
  return {.method = Method::get,
          .path = std::move(path),
          .access = access,
          .id = id,
          .tag = "system",
          .summary = summary};
}

}  // namespace

void add_system_routes(http::Api& api, http::Metrics& metrics, std::function<bool()> ready) {
  api.add_raw(route("/healthz", Access::open, "getHealth", "Is the process alive?"),
              {.answer_type = "text/plain"},
              [](Call&) -> Result<Response> { return Response::text(200, "ok\n"); });
  api.add_raw(route("/readyz", Access::open, "getReadiness", "Can it answer requests? 503 where not"),
              {.answer_type = "text/plain"}, [ready = std::move(ready)](Call&) -> Result<Response> {
                const bool now = ready();
                return Response::text(now ? 200 : 503, now ? "ready\n" : "not ready\n");
              });
  api.add_raw(route("/metrics", Access::admin, "getMetrics",
                    "What Prometheus scrapes, with an administrator's API key"),
              {.answer_type = "text/plain"}, [&metrics](Call&) -> Result<Response> {
                return Response::text(200, metrics.expose(), "text/plain; version=0.0.4; charset=utf-8");
              });
  // Made at the first request: by then every feature has added its routes.
  auto document = std::make_shared<Document>();
  api.add_raw(
      route("/api/v1/openapi.json", Access::open, "getOpenApi", "This interface as an OpenAPI document"),
      {.answer_type = "application/json"}, [&api, document](Call&) -> Result<Response> {
        std::call_once(document->made, [&] { document->text = json::print(api.openapi()); });
        return Response::json(200, document->text);
      });
  api.add_raw(route("/docs", Access::open, "getDocs", "The OpenAPI document as a page to read"),
              {.answer_type = "text/html"}, [](Call&) -> Result<Response> {
                Response page = Response::text(200, std::string(docs_page()), "text/html; charset=utf-8");
                page.headers.set("Content-Security-Policy",
                                 "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
                                 "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'");
                return page;
              });
}

}  // namespace lathe::app
