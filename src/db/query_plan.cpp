#include "db/query_plan.h"

namespace lathe::db {

std::string explain(Transaction& tx, std::string_view sql, std::vector<Value> args) {
  const Rows rows = tx.query("EXPLAIN QUERY PLAN " + std::string(sql), std::move(args));
  const std::size_t detail = rows.column("detail");
  std::string plan;
  for (std::size_t i = 0; i < rows.size(); ++i) plan += rows.text(i, detail) + "\n";
  return plan;
}

bool uses_indexes_only(std::string_view plan) {
  while (!plan.empty()) {
    const std::string_view step = plan.substr(0, plan.find('\n'));
    plan.remove_prefix(std::min(step.size() + 1, plan.size()));
    const bool whole_table = step.starts_with("SCAN ") && step.find(" USING ") == step.npos &&
                             step != "SCAN CONSTANT ROW" && step.find("VIRTUAL TABLE") == step.npos;
    if (whole_table || step.starts_with("USE TEMP B-TREE")) return false;
  }
  return true;
}

}  // namespace lathe::db
