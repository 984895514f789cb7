#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/result.h"

namespace lathe::jobs {

/// Gathers everything that is wrong with a request, so that all of it is told at once.
class Problems {
 public:
  void add(std::string field, Text text) { violations_.push_back({std::move(field), std::move(text)}); }

  /// Notes an error. Any but invalid_argument stands for the whole request, the first one of them.
  void add(Error error) {
    if (error.code == Code::invalid_argument && !error.violations.empty()) {
      for (auto& each : error.violations) violations_.push_back(std::move(each));
    } else if (!other_) {
      other_ = std::move(error);
    }
  }

  /// The value of a result, or a default one and its error noted.
  template <class T>
  T take(Result<T> result) {
    if (result.ok()) return std::move(result).value();
    add(std::move(result).error());
    return T{};
  }
  void take(Result<void> result) {
    if (!result.ok()) add(std::move(result).error());
  }

  bool empty() const { return violations_.empty() && !other_; }

  Result<void> result() && {
    if (!violations_.empty())
      return Error{Code::invalid_argument, {"参数有误", "invalid request"}, std::move(violations_)};
    if (other_) return std::move(*other_);
    return {};
  }

 private:
  std::vector<Violation> violations_;
  std::optional<Error> other_;
};

}  // namespace lathe::jobs
