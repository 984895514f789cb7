#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/fields.h"

/// /api/v1/usage.
namespace lathe::gateway::wire {

struct UsageQuery {
  std::string userId, keyId;
  std::int64_t days = 30;
};
inline void fields(Fields& f, UsageQuery& q) {
  f.field("userId", q.userId, {.doc = "For administrators: one user's alone", .form = Form::id});
  f.field("keyId", q.keyId, {.doc = "One API key's alone", .form = Form::id});
  f.field("days", q.days, {.doc = "The last so many days, today included", .min = 1, .max = 3660});
}

struct UsageItem {
  std::string userId, keyId, deploymentId;
  std::int64_t requests = 0, promptTokens = 0, completionTokens = 0;
};
inline void fields(Fields& f, UsageItem& item) {
  f.field("userId", item.userId);
  f.field("keyId", item.keyId, {.doc = "Empty: called with a session, or with a key that is gone"});
  f.field("deploymentId", item.deploymentId);
  f.field("requests", item.requests);
  f.field("promptTokens", item.promptTokens, {.doc = "As the answers' `usage` told"});
  f.field("completionTokens", item.completionTokens);
}

struct UsageAnswer {
  std::vector<UsageItem> items;
};
inline void fields(Fields& f, UsageAnswer& answer) {
  f.field("items", answer.items);
}

}  // namespace lathe::gateway::wire
