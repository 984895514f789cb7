#include "files/resumable.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "base/log.h"
#include "files/files_wire.h"

namespace lathe::files {

namespace {

constexpr std::string_view kPrefix = "tus-";
constexpr std::string_view kData = "data";
constexpr std::chrono::minutes kSweepEvery{5};

Path stage_path(std::string_view id) {
  return Path::parse(std::string(kPrefix) + std::string(id), "id").value();
}
Path data_path() {
  return Path::parse(kData, "id").value();
}
Error no_such_upload(std::string_view id) {
  return not_found({"上传", "upload"}, id);
}

}  // namespace

/// One request at a time may write to an upload.
class Resumable::Turn {
 public:
  Turn(Resumable& owner, std::string_view id) : owner_(owner), id_(id) {
    std::lock_guard lock(owner_.mutex_);
    bool& busy = owner_.busy_[id_];
    mine_ = !busy;
    busy = true;
  }
  ~Turn() {
    if (!mine_) return;
    std::lock_guard lock(owner_.mutex_);
    owner_.busy_.erase(id_);
  }
  bool mine() const { return mine_; }

 private:
  Resumable& owner_;
  const std::string id_;
  bool mine_ = false;
};

Result<std::unique_ptr<Resumable>> Resumable::open(Files& files, Publishing& publishing,
                                                   const Directory& staging, db::Database& db, IdSource& ids,
                                                   const Clock& clock, const Options& options) {
  std::unique_ptr<Resumable> out(new Resumable(files, publishing, staging, db, ids, clock, options));
  TRY(out->recover());
  out->sweeper_ = std::thread([raw = out.get()] { raw->run(); });
  return out;
}

Resumable::~Resumable() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  if (sweeper_.joinable()) sweeper_.join();
}

Result<void> Resumable::recover() {
  auto rows =
      TRY(db_.read([](db::Transaction& tx) -> Result<std::vector<UploadRow>> { return all_uploads(tx); }));
  std::map<std::string, bool, std::less<>> known;
  for (UploadRow& row : rows) {
    known[std::string(kPrefix) + row.id] = true;
    if (row.state == "complete") continue;
    if (row.state == "publishing") {
      if (auto published = publish(row); !published)
        log::warning("upload {}: {}", row.id, published.error().describe(Language::en));
      continue;
    }
    auto reservation = TRY(files_.reserve(row.user_id));
    // A quota that was lowered meanwhile does not end what was accepted under the old one.
    if (reservation->grow(row.length, 1)) reservations_.emplace(row.id, std::move(reservation));
  }
  std::string after;
  while (true) {  // folders whose row was never written, or is gone
    const auto page = TRY(staging_.list(Path(), after, 1000));
    if (page.empty()) return {};
    after = page.back().name;
    for (const auto& entry : page)
      if (entry.name.starts_with(kPrefix) && !known.contains(entry.name))
        TRY(staging_.remove_tree(TRY(Path::parse(entry.name, "id"))));
  }
}

Result<void> Resumable::store(const UploadRow& row) {
  return db_.write([&](db::Transaction& tx) -> Result<void> {
    update_upload(tx, row);
    return {};
  });
}

Result<UploadRow> Resumable::create(const Root& root, const Path& path, std::string_view created_by,
                                    std::int64_t length, std::string_view metadata) {
  auto reservation = TRY(files_.reserve(root.user_id));
  TRY(reservation->grow(length, 1));
  UploadRow row;
  row.id = ids_.next();
  row.user_id = root.user_id;
  row.created_by = created_by;
  row.scope = name(root.scope);
  row.path = path.text();
  row.metadata = metadata;
  row.length = length;
  row.created_at = clock_.now();
  row.expires_at = row.created_at + options_.upload_lifetime;
  const Path own = stage_path(row.id);
  TRY(staging_.make_directories(own, 0700));
  const Directory stage = TRY(staging_.at(own));
  TRY(stage.create_file(data_path(), 0644, files_.owner()));
  TRY(stage.sync());
  TRY(staging_.sync());
  TRY(db_.write([&](db::Transaction& tx) -> Result<void> {
    add_upload(tx, row);
    return {};
  }));
  {
    std::lock_guard lock(mutex_);
    reservations_.emplace(row.id, std::move(reservation));
  }
  if (length == 0) TRY(publish(row));
  return row;
}

Result<UploadRow> Resumable::find(std::string_view id, const http::Identity& caller) {
  auto row = TRY(
      db_.read([&](db::Transaction& tx) -> Result<std::optional<UploadRow>> { return find_upload(tx, id); }));
  if (!row || row->expires_at < clock_.now()) return no_such_upload(id);
  if (!caller.admin && row->created_by != caller.user_id) return no_such_upload(id);
  return *std::move(row);
}

Result<void> Resumable::take(UploadRow& row, FileWriter& file, std::optional<tus::Checksum>& checksum,
                             http::BodyReader& body, bool& mismatch) {
  const std::int64_t start = row.received;
  std::string buffer(http::kBodyPiece, '\0');
  auto durable = [&]() -> Result<void> {
    TRY(file.sync());
    row.received = static_cast<std::int64_t>(file.size());
    row.expires_at = clock_.now() + options_.upload_lifetime;
    return store(row);
  };
  Result<void> outcome;
  while (true) {
    auto got = body.read(buffer);
    if (!got) outcome = got.error();
    if (!got || *got == 0) break;
    if (static_cast<std::int64_t>(file.size() + *got) > row.length) {
      outcome = Error{Code::too_large, {"超出 Upload-Length", "more bytes than Upload-Length"}};
      break;
    }
    const std::string_view bytes(buffer.data(), *got);
    if (checksum) checksum->add(bytes);
    TRY(file.write(bytes));
    if (!checksum && file.size() - static_cast<std::uint64_t>(row.received) >= options_.upload_checkpoint)
      TRY(durable());
  }
  if (checksum) {
    mismatch = outcome.ok() && !checksum->matches();
    if (!outcome || mismatch) {
      TRY(file.cut(static_cast<std::uint64_t>(start)));
      return outcome;
    }
  }
  TRY(durable());
  return outcome;
}

Result<Resumable::Received> Resumable::receive(std::string_view id, const http::Identity& caller,
                                               std::int64_t offset, std::optional<tus::Checksum> checksum,
                                               http::BodyReader& body) {
  Turn turn(*this, id);
  Received out{TRY(find(id, caller)), std::nullopt};
  UploadRow& row = out.row;
  if (!turn.mine()) {
    out.refused = Refused::busy;
    return out;
  }
  if (offset != row.received) {
    out.refused = Refused::offset;
    return out;
  }
  if (const auto length = body.length(); length && *length > static_cast<std::uint64_t>(row.length - offset))
    return Error{Code::too_large, {"超出 Upload-Length", "more bytes than Upload-Length"}};
  if (row.state == "complete") return out;
  const Directory stage = TRY(staging_.at(stage_path(row.id)));
  Fd fd(openat(stage.fd(), std::string(kData).c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW));
  // Bytes beyond the durable offset may be there from a request that broke off: they were not promised.
  if (!fd || ftruncate(fd.get(), row.received) != 0 || lseek(fd.get(), row.received, SEEK_SET) < 0)
    return system_error("open upload", errno);
  FileWriter file(std::move(fd), static_cast<std::uint64_t>(row.received));
  bool mismatch = false;
  TRY(take(row, file, checksum, body, mismatch));
  if (mismatch) {
    out.refused = Refused::checksum;
    return out;
  }
  if (row.received == row.length) TRY(publish(row));
  return out;
}

Result<void> Resumable::publish(UploadRow& row) {
  if (row.state != "publishing") {
    row.state = "publishing";
    TRY(store(row));
  }
  const Path own = stage_path(row.id);
  std::unique_ptr<Reservation> reservation;
  {
    std::lock_guard lock(mutex_);
    if (auto node = reservations_.extract(row.id)) reservation = std::move(node.mapped());
  }
  auto stage = staging_.at(own);
  if (stage && stage->exists(data_path())) {
    const Publication publication{row.user_id, row.scope, {{std::string(kData), row.path}}};
    auto published = publishing_.publish(*stage, publication, {row.user_id, scope_named(row.scope)}, "path");
    if (!published) {
      // Something stands in the way: told to the client, who may make room and send the last piece, which is
      // empty, again.
      row.state = "receiving";
      TRY(store(row));
      std::lock_guard lock(mutex_);
      if (reservation) reservations_.emplace(row.id, std::move(reservation));
      return published.error();
    }
    if (reservation) {
      reservation->commit(published->bytes, published->inodes);
    } else {
      files_.recount(row.user_id);
    }
  }
  row.state = "complete";
  TRY(store(row));
  return staging_.remove_tree(own);
}

Result<void> Resumable::discard(const UploadRow& row) {
  TRY(db_.write([&](db::Transaction& tx) -> Result<void> {
    remove_upload(tx, row.id);
    return {};
  }));
  {
    std::lock_guard lock(mutex_);
    reservations_.erase(row.id);
  }
  return staging_.remove_tree(stage_path(row.id));
}

Result<void> Resumable::remove(std::string_view id, const http::Identity& caller) {
  Turn turn(*this, id);
  const UploadRow row = TRY(find(id, caller));
  if (!turn.mine())
    return Error{Code::failed_precondition,
                 {"正在接收数据，请先停止上传", "bytes are arriving; stop the upload first"}};
  return discard(row);
}

void Resumable::sweep() {
  auto rows = db_.read([&](db::Transaction& tx) -> Result<std::vector<UploadRow>> {
    return expired_uploads(tx, clock_.now());
  });
  if (!rows) return;
  for (const UploadRow& old : *rows) {
    Turn turn(*this, old.id);
    if (!turn.mine()) continue;
    // Somebody may have gone on with it since.
    auto row = db_.read(
        [&](db::Transaction& tx) -> Result<std::optional<UploadRow>> { return find_upload(tx, old.id); });
    if (!row || !*row || (*row)->expires_at >= clock_.now()) continue;
    if (auto gone = discard(**row); !gone)
      log::warning("upload {} has expired but remains: {}", old.id, gone.error().describe(Language::en));
  }
}

void Resumable::run() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    lock.unlock();
    sweep();
    lock.lock();
    wake_.wait_for(lock, kSweepEvery, [this] { return stop_; });
  }
}

}  // namespace lathe::files
