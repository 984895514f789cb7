#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fields.h"
#include "db/database.h"

namespace lathe::files {

struct UsageRow {
  std::string user_id;
  std::int64_t bytes = 0;
  std::int64_t inodes = 0;
  Time measured_at{};
};
inline void fields(Fields& f, UsageRow& r) {
  f.field("user_id", r.user_id);
  f.field("bytes", r.bytes);
  f.field("inodes", r.inodes);
  f.field("measured_at", r.measured_at);
}

/// A resumable upload. `receiving` → `publishing` (all bytes are durable, the file is about to be renamed to
/// its place) → `complete`.
struct UploadRow {
  std::string id, user_id, created_by, scope, path, metadata;
  std::int64_t length = 0;
  std::int64_t received = 0;
  std::string state = "receiving";
  Time created_at{}, expires_at{};
};
inline void fields(Fields& f, UploadRow& r) {
  f.field("id", r.id);
  f.field("user_id", r.user_id);
  f.field("created_by", r.created_by);
  f.field("scope", r.scope);
  f.field("path", r.path);
  f.field("metadata", r.metadata);
  f.field("length", r.length);
  f.field("received", r.received);
  f.field("state", r.state);
  f.field("created_at", r.created_at);
  f.field("expires_at", r.expires_at);
}

std::vector<UsageRow> all_usage(db::Transaction& tx);
void save_usage(db::Transaction& tx, const UsageRow& row);

std::optional<UploadRow> find_upload(db::Transaction& tx, std::string_view id);
std::vector<UploadRow> all_uploads(db::Transaction& tx);
std::vector<UploadRow> expired_uploads(db::Transaction& tx, Time now);
void add_upload(db::Transaction& tx, const UploadRow& row);
void update_upload(db::Transaction& tx, const UploadRow& row);
void remove_upload(db::Transaction& tx, std::string_view id);

}  // namespace lathe::files
