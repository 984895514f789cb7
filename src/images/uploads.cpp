#include "images/uploads.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <set>

#include "base/file_writer.h"
#include "images/parallel_sha256.h"
#include "images/uploads_store.h"

namespace lathe::images {

namespace {

constexpr std::size_t kPiece = 1 << 20;
constexpr auto kPatience = std::chrono::seconds{10};  // for another request on the same upload
constexpr std::int64_t kMostUploads = 1000;           // of a user, at a time
constexpr Duration kTouchEvery = std::chrono::minutes{1};

Path own_path(std::string_view text) {
  return Path::parse(text, "upload").value();
}

Error no_upload(std::string_view id) {
  return about("upload", not_found({"上传", "upload"}, id));
}

}  // namespace

struct Uploads::State {
  bool busy = false;  ///< somebody holds it; under Uploads::mutex_
  store::UploadRow row;
  FileWriter file;      ///< open while somebody works on it
  bool loaded = false;  ///< the hash and the size are those of what the file has
  ParallelSha256 hash;
  std::uint64_t size = 0;
  std::unique_ptr<files::Reservation> reservation;
  bool over = false;

  Result<void> append(std::string_view bytes) {
    TRY(reservation->grow(static_cast<std::int64_t>(bytes.size()), 0));
    hash.add(bytes);
    if (auto written = file.write(bytes); !written) {
      loaded = false;  // what the file has is found out anew by whoever goes on
      return written;
    }
    size += bytes.size();
    return {};
  }
};

Result<std::unique_ptr<Uploads>> Uploads::open(db::Database& db, files::Files& files, BlobStore& store,
                                               IdSource& ids, const Clock& clock) {
  std::unique_ptr<Uploads> uploads(new Uploads(db, files, store, ids, clock));
  uploads->folder_ = TRY(Directory::create(store.host_path() + "/.uploads", 0700));
  TRY(uploads->clean());
  return uploads;
}

Result<void> Uploads::clean() {
  std::set<std::string> known;
  TRY(db_.read([&](db::Transaction& tx) -> Result<void> {
    for (auto& id : store::upload_ids(tx)) known.insert(std::move(id));
    return {};
  }));
  std::string after;
  while (true) {
    const auto page = TRY(folder_.list(Path(), after, 1000));
    if (page.empty()) break;
    after = page.back().name;
    for (const auto& entry : page)
      if (known.erase(entry.name) == 0) TRY(folder_.remove_tree(own_path(entry.name)));
  }
  return db_.write([&](db::Transaction& tx) -> Result<void> {
    for (const auto& id : known) store::remove_upload(tx, id);  // its file is in the store already
    return {};
  });
}

Result<Uploads::Held> Uploads::begin(const std::string& user_id, const std::string& name) {
  auto state = std::make_shared<State>();
  state->row = {ids_.next(), user_id, name, clock_.now()};
  state->file = FileWriter(TRY(folder_.create_file(own_path(state->row.id), 0644)), 0);
  state->reservation = TRY(files_.reserve(user_id));
  state->loaded = true;
  auto added = db_.write([&](db::Transaction& tx) -> Result<void> {
    if (store::count_uploads(tx, user_id) >= kMostUploads)
      return Error{Code::resource_exhausted,
                   {"未完成的上传过多", "too many uploads are under way; finish or cancel some"}};
    store::add_upload(tx, state->row);
    return {};
  });
  if (!added) {
    TRY(folder_.remove_tree(own_path(state->row.id)));
    return std::move(added).error();
  }
  state->busy = true;
  const std::lock_guard lock(mutex_);
  known_[state->row.id] = state;
  return Held(*this, std::move(state));
}

Result<std::unique_ptr<files::Reservation>> Uploads::reserve(const std::string& user_id,
                                                             std::uint64_t bytes) {
  auto out = TRY(files_.reserve(user_id));
  TRY(out->grow(static_cast<std::int64_t>(bytes), 0));
  return out;
}

Result<Uploads::Held> Uploads::find(const std::string& id, std::string_view user_id, std::string_view name) {
  const auto row = TRY(db_.read(
      [&](db::Transaction& tx) -> Result<std::optional<store::UploadRow>> { return store::upload(tx, id); }));
  if (!row || row->user_id != user_id || row->name != name) return no_upload(id);
  Held held = TRY(hold(*row));
  TRY(open_file(*held.state_));
  TRY(touch(*held.state_));
  return held;
}

Result<Uploads::Held> Uploads::hold(const store::UploadRow& row) {
  std::shared_ptr<State> state;
  {
    // Not a timed mutex: the thread sanitizer of g++ 12 does not see one being taken.
    std::unique_lock lock(mutex_);
    auto& known = known_[row.id];
    if (!known) {
      known = std::make_shared<State>();
      known->row = row;
    }
    state = known;
    if (!freed_.wait_for(lock, kPatience, [&] { return !state->busy; }))
      return Error{Code::unavailable,
                   {"另一个请求正在处理此上传", "another request is at work on this upload"},
                   {},
                   std::chrono::seconds{5}};
    state->busy = true;
  }
  Held held(*this, state);
  // It may have ended since the row was read.
  const auto still = TRY(db_.read([&](db::Transaction& tx) -> Result<std::optional<store::UploadRow>> {
    return store::upload(tx, row.id);
  }));
  if (state->over || !still) {
    const std::lock_guard lock(mutex_);
    known_.erase(row.id);
    return no_upload(row.id);
  }
  state->row = *still;
  return held;
}

Result<std::optional<Uploads::Held>> Uploads::find_named(const std::string& user_id,
                                                         const std::string& name) {
  const auto row = TRY(db_.read([&](db::Transaction& tx) -> Result<std::optional<store::UploadRow>> {
    return store::upload_named(tx, user_id, name);
  }));
  if (!row) return std::optional<Held>();
  auto held = find(row->id, user_id, name);
  if (held.ok()) return std::optional<Held>(*std::move(held));
  const Code code = held.error().code;
  if (code != Code::not_found && code != Code::unavailable) return std::move(held).error();
  return std::optional<Held>();
}

Result<void> Uploads::open_file(State& state) {
  const Fd file = TRY(folder_.open_file(own_path(state.row.id), Links::refuse));
  // For writing, by the descriptor that was found beneath the folder.
  Fd fd(::open(("/proc/self/fd/" + std::to_string(file.get())).c_str(), O_RDWR | O_CLOEXEC));
  if (!fd) return system_error("open", errno);
  if (!state.loaded) TRY(read_again(state, fd.get()));
  state.file = FileWriter(std::move(fd), state.size);
  return state.file.cut(state.size);  // also room that was allocated ahead when the server was killed
}

Result<void> Uploads::read_again(State& state, int fd) {
  auto reservation = TRY(files_.reserve(state.row.user_id));
  ParallelSha256 hash;
  std::uint64_t size = 0;
  std::string buffer(kPiece, '\0');
  while (true) {
    const ssize_t got = ::read(fd, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return system_error("read", errno);
    if (got == 0) break;
    hash.add(std::string_view(buffer.data(), static_cast<std::size_t>(got)));
    size += static_cast<std::uint64_t>(got);
  }
  TRY(reservation->grow(static_cast<std::int64_t>(size), 0));
  state.hash = std::move(hash);
  state.size = size;
  state.reservation = std::move(reservation);
  state.loaded = true;
  return {};
}

Result<void> Uploads::touch(State& state) {
  const Time now = clock_.now();
  if (now - state.row.touched_at < kTouchEvery) return {};
  state.row.touched_at = now;
  return db_.write([&](db::Transaction& tx) -> Result<void> {
    store::touch_upload(tx, state.row.id, now);
    return {};
  });
}

Result<void> Uploads::remove(State& state) {
  state.over = true;
  state.file.close();
  state.reservation.reset();
  auto removed = db_.write([&](db::Transaction& tx) -> Result<void> {
    store::remove_upload(tx, state.row.id);
    return {};
  });
  if (removed) removed = folder_.remove_tree(own_path(state.row.id));
  // Last: until here whoever looks for it finds that it is over.
  const std::lock_guard lock(mutex_);
  known_.erase(state.row.id);
  return removed;
}

Result<void> Uploads::drop_expired(Time before) {
  const auto rows = TRY(db_.read([&](db::Transaction& tx) -> Result<std::vector<store::UploadRow>> {
    return store::uploads_until(tx, before);
  }));
  for (const auto& row : rows) {
    auto held = hold(row);
    if (!held) continue;                                  // it ended just now, or somebody is at work on it
    if (held->state_->row.touched_at > before) continue;  // somebody came back since the rows were read
    TRY(held->cancel());
  }
  return {};
}

Uploads::Held::~Held() {
  if (!state_) return;
  state_->file.close();
  {
    const std::lock_guard lock(uploads_->mutex_);
    state_->busy = false;
  }
  uploads_->freed_.notify_all();
}

const std::string& Uploads::Held::id() const {
  return state_->row.id;
}

std::uint64_t Uploads::Held::size() const {
  return state_->size;
}

Result<void> Uploads::Held::append(http::BodyReader& body) {
  auto taken = take(body);
  // No thread waits for a request that may never come.
  state_->hash.settle();
  return taken;
}

Result<void> Uploads::Held::append(std::string_view bytes) {
  return state_->append(bytes);
}

void Uploads::Held::settle() {
  state_->hash.settle();
}

Result<void> Uploads::Held::take(http::BodyReader& body) {
  std::string buffer(kPiece, '\0');
  while (true) {
    std::size_t filled = 0;
    Error broken;
    bool end = false, failed = false;
    while (filled < buffer.size() && !end && !failed) {
      auto got = body.read({buffer.data() + filled, buffer.size() - filled});
      failed = !got.ok();
      if (failed) {
        broken = std::move(got).error();
      } else {
        end = *got == 0;
        filled += *got;
      }
    }
    TRY(state_->append(std::string_view(buffer.data(), filled)));
    if (failed) return broken;
    if (end) return {};
  }
}

Result<Blob> Uploads::Held::finish(std::string_view digest, BlobStore::Lease& lease) {
  State& s = *state_;
  const std::string is = s.hash.digest();
  if (is != digest) {
    TRY(uploads_->remove(s));
    return about("digest", {Code::invalid_argument, {"内容的摘要是 " + is, "the content's digest is " + is}});
  }
  const Blob blob{is, s.size};
  s.loaded = false;  // the hash is closed: should this fail, whoever tries again reads the file anew
  TRY(s.file.sync());
  TRY(uploads_->store_.take(uploads_->folder_, own_path(s.row.id), is, lease));
  TRY(uploads_->store_.sync());
  TRY(uploads_->remove(s));
  return blob;
}

Result<void> Uploads::Held::cancel() {
  return uploads_->remove(*state_);
}

}  // namespace lathe::images
