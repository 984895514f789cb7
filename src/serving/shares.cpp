#include "serving/shares.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>

#include "serving/rollout.h"

namespace lathe::serving {

namespace {

std::optional<std::int64_t> percent(const Json& value) {
  std::int64_t out = -1;
  if (value.is_int64()) {
    out = value.get_int64();
  } else if (value.is_string()) {
    const std::string_view text = value.get_string();
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
    if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  }
  if (out < 0 || out > 100) return std::nullopt;
  return out;
}

const Json* first_of(const boost::json::object& object, std::initializer_list<std::string_view> names) {
  for (const auto name : names)
    if (const Json* found = object.if_contains(name)) return found;
  return nullptr;
}

}  // namespace

Result<std::vector<GivenShare>> read_shares(const std::vector<Json>& list, const std::string& field) {
  std::vector<GivenShare> out;
  const auto add = [&](std::string_view id, const Json& value, const std::string& at) -> Result<void> {
    const auto rate = percent(value);
    if (!rate) return invalid_field(at, {"应为 0 到 100 之间的整数", "must be a whole number from 0 to 100"});
    out.push_back({std::string(id), *rate});
    return {};
  };
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::string at = fmt::format("{}[{}]", field, i);
    const auto* object = list[i].if_object();
    if (!object || object->empty())
      return invalid_field(
          at, {R"(应为 {"id": 版本, "rate": 百分数})", R"(must be {"id": VERSION, "rate": PERCENT})"});
    const Json* rate = object->if_contains("rate");
    if (!rate) {
      for (const auto& member : *object) TRY(add(member.key(), member.value(), at));
      continue;
    }
    const Json* id = first_of(*object, {"id", "modelServerVersionId", "versionId"});
    if (!id || !id->is_string())
      return invalid_field(at + ".id", {"不能为空：版本的 id", "is required: the id of a version"});
    TRY(add(id->get_string(), *rate, at + ".rate"));
  }
  return out;
}

Result<void> check_shares(const std::vector<store::VersionRow>& versions, const std::string& field) {
  std::int64_t sum = 0;
  for (const auto& version : versions) sum += version.rate;
  if (sum == 100) return {};
  return invalid_field(field, {fmt::format("各版本流量比例之和应为 100，现为 {}", sum),
                               fmt::format("the shares of the versions must sum to 100, not {}", sum)});
}

Result<void> settle_shares(std::vector<store::VersionRow>& all, std::size_t added,
                           const std::vector<GivenShare>& given, const std::string& field) {
  const auto first_new = all.end() - static_cast<std::ptrdiff_t>(added);
  for (const auto& share : given) {
    const auto it = std::find_if(all.begin(), first_new, [&](const auto& v) { return v.id == share.id; });
    if (it == first_new)
      return invalid_field(field + ".rates", {"不是此服务的版本：" + share.id,
                                              "is not a version of this service: " + share.id});
    it->rate = share.rate;
  }
  std::int64_t taken = 0;
  for (auto it = first_new; it != all.end(); ++it) taken += it->rate;
  if (given.empty() && taken > 0) {
    const auto has_share = [](const auto& version) { return version.rate > 0; };
    if (taken == 100) {
      for (auto it = all.begin(); it != first_new; ++it) it->rate = 0;
    } else if (std::count_if(all.begin(), first_new, has_share) == 1) {
      std::find_if(all.begin(), first_new, has_share)->rate = 100 - taken;
    }
  }
  return check_shares(all, field + (added == all.size() ? ".rate" : ".rates"));
}

void begin_rollout(std::vector<store::VersionRow>& versions, const std::vector<std::int64_t>& before,
                   bool started) {
  std::int64_t bearing = 0;
  for (std::size_t i = 0; i < versions.size(); ++i)
    if (started && before[i] > 0) bearing += versions[i].desired;
  for (std::size_t i = 0; i < versions.size(); ++i) {
    auto& version = versions[i];
    if (version.rate <= 0 || before[i] > 0) continue;
    version.rolled_out = false;
    version.desired =
        first_replicas(static_cast<int>(bearing), static_cast<int>(version.rate),
                       static_cast<int>(version.min_replicas), static_cast<int>(version.max_replicas));
  }
}

}  // namespace lathe::serving
