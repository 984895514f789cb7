#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "algorithms/algorithms.h"
#include "algorithms/algorithms_wire.h"

namespace lathe::algorithms {

/// What the routes call. Constant, hence safe from any thread.
class Service final : public Algorithms {
 public:
  /// By kind, then id.
  explicit Service(std::vector<wire::Definition> definitions);

  const Algorithm* find(std::string_view id) const override;
  Result<const Algorithm*> get(std::string_view id, Kind kind, std::string_view field) const override;
  std::span<const Algorithm> all() const override { return algorithms_; }
  const Algorithm* serving_for(const models::ModelFacts& facts) const override;
  void add_routes(http::Api& api) override;

  /// As they are shown: `kind` empty means all.
  std::vector<wire::Definition> list(std::string_view kind) const;
  Result<wire::Definition> show(std::string_view id) const;

 private:
  std::vector<wire::Definition> definitions_;
  std::vector<Algorithm> algorithms_;  ///< in the same order
};

}  // namespace lathe::algorithms
