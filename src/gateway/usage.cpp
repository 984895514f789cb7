#include "gateway/usage.h"

#include "accounts/accounts_service.h"
#include "base/log.h"
#include "gateway/usage_store.h"

namespace lathe::gateway {

namespace {

constexpr std::chrono::seconds kWriteEvery{5};
constexpr std::string_view kBearer = "Bearer ";

std::int64_t day_of(Time time) {
  return std::chrono::duration_cast<std::chrono::hours>(time.time_since_epoch()).count() / 24;
}

/// The token where it is an API key, else "": sessions come and go.
std::string_view key_in(std::string_view authorization) {
  if (!authorization.starts_with(kBearer)) return {};
  const auto token = authorization.substr(kBearer.size());
  return token.starts_with(accounts::kKeyPrefix) ? token : std::string_view();
}

}  // namespace

UsageLedger::UsageLedger(db::Database& db, const Clock& clock) : db_(db), clock_(clock) {
  thread_ = std::thread([this] { loop(); });
}

UsageLedger::~UsageLedger() {
  {
    const std::scoped_lock lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void UsageLedger::loop() {
  for (bool last = false; !last;) {
    {
      std::unique_lock lock(mutex_);
      last = changed_.wait_for(lock, kWriteEvery, [this] { return ending_; });
    }
    const auto written = flush();
    if (!written.ok()) log::error("usage: {}", written.error().describe(Language::en));
  }
}

void UsageLedger::record(const http::Request& request, const http::Identity& caller,
                         std::string_view service_id, const Usage& usage) {
  const auto key = key_in(request.headers.get("authorization"));
  const std::scoped_lock lock(mutex_);
  auto found = sums_.find(KeyView(caller.user_id, key, service_id));
  if (found == sums_.end()) found = sums_.try_emplace(Key(caller.user_id, key, service_id)).first;
  Sum& sum = found->second;
  ++sum.requests;
  sum.usage.prompt_tokens += usage.prompt_tokens;
  sum.usage.completion_tokens += usage.completion_tokens;
}

Result<void> UsageLedger::flush() {
  const std::scoped_lock one_at_a_time(flush_mutex_);
  Sums sums;
  {
    const std::scoped_lock lock(mutex_);
    sums.swap(sums_);
  }
  if (sums.empty()) return {};
  const std::int64_t today = day_of(clock_.now());
  auto written = db_.write([&](db::Transaction& tx) -> Result<void> {
    for (const auto& [key, sum] : sums) {
      const auto& [user, token, service] = key;
      store::add(tx, {.user_id = user,
                      .key_id = token.empty() ? "" : store::key_of(tx, accounts::token_hash(token)),
                      .service_id = service,
                      .day = today,
                      .requests = sum.requests,
                      .prompt_tokens = static_cast<std::int64_t>(sum.usage.prompt_tokens),
                      .completion_tokens = static_cast<std::int64_t>(sum.usage.completion_tokens)});
    }
    return {};
  });
  if (written.ok()) return {};
  // Kept for the next time.
  const std::scoped_lock lock(mutex_);
  for (const auto& [key, sum] : sums) {
    Sum& into = sums_[key];
    into.requests += sum.requests;
    into.usage.prompt_tokens += sum.usage.prompt_tokens;
    into.usage.completion_tokens += sum.usage.completion_tokens;
  }
  return written;
}

void UsageLedger::add_routes(http::Api& api) {
  api.add<wire::UsageQuery, wire::UsageAnswer>(
      {.method = http::Method::get,
       .path = "/api/v1/usage",
       .access = http::Access::user,
       .id = "getUsage",
       .tag = "services",
       .summary = "Requests and tokens by API key and service; an administrator sees everybody's"},
      [this](http::Call& call, const wire::UsageQuery& query) -> Result<wire::UsageAnswer> {
        if (!call.caller.admin && !query.userId.empty() && query.userId != call.caller.user_id)
          return Error{Code::permission_denied,
                       {"只有管理员可以查看他人的用量", "only administrators see somebody else's usage"}};
        TRY(flush());
        const std::string user = call.caller.admin ? query.userId : call.caller.user_id;
        const std::int64_t first = day_of(clock_.now()) - query.days + 1;
        return db_.read([&](db::Transaction& tx) -> Result<wire::UsageAnswer> {
          return wire::UsageAnswer{store::sums(tx, user, query.keyId, first)};
        });
      });
}

}  // namespace lathe::gateway
