#include "algorithms/algorithms_service.h"
#include "http/slice.h"

namespace lathe::algorithms {

using http::Access;
using http::Call;
using http::Method;

void Service::add_routes(http::Api& api) {
  const std::string list_path = "/api/v1/algorithms";
  api.add<wire::ListIn, http::Slice<wire::Definition>>(
      {.method = Method::get,
       .path = list_path,
       .access = Access::user,
       .id = "listAlgorithms",
       .tag = "algorithms",
       .summary = "The preset algorithms, by kind"},
      [this](Call&, const wire::ListIn& in) -> Result<http::Slice<wire::Definition>> {
        return http::Slice<wire::Definition>{list(in.kind), {}};
      });
  api.add<wire::ById, wire::Definition>({.method = Method::get,
                                         .path = list_path + "/{id}",
                                         .access = Access::user,
                                         .id = "getAlgorithm",
                                         .tag = "algorithms",
                                         .summary = "Show a preset algorithm"},
                                        [this](Call&, const wire::ById& in) { return show(in.id); });
}

}  // namespace lathe::algorithms
