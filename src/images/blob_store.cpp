#include "images/blob_store.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <cerrno>

#include "base/file_writer.h"
#include "base/ids.h"
#include "base/log.h"
#include "images/parallel_sha256.h"
#include "images/reference.h"

namespace lathe::images {

namespace {

constexpr std::size_t kMostBehind = 32 << 20;  // of the hashing, while the disk is slow: few import at a time

Path own_path(std::string_view text) {
  return Path::parse(text, "digest").value();
}

Result<Path> blob_path(std::string_view digest) {
  if (!is_digest(digest)) return invalid_field("digest", {"不是 sha256 摘要", "is not a sha256 digest"});
  return own_path(hex_of(digest));
}

}  // namespace

Sha256::Sha256()
    : context_(EVP_MD_CTX_new(), [](void* context) { EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context)); }) {
  EVP_DigestInit_ex(static_cast<EVP_MD_CTX*>(context_.get()), EVP_sha256(), nullptr);
}

void Sha256::add(std::string_view bytes) {
  EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(context_.get()), bytes.data(), bytes.size());
}

std::string Sha256::digest() {
  unsigned char hash[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  EVP_DigestFinal_ex(static_cast<EVP_MD_CTX*>(context_.get()), hash, &size);
  constexpr char kHex[] = "0123456789abcdef";
  std::string out = "sha256:";
  for (unsigned i = 0; i < size; ++i) {
    out += kHex[hash[i] >> 4];
    out += kHex[hash[i] & 15];
  }
  return out;
}

struct BlobStore::Writer::State {
  State(BlobStore& in, std::size_t small) : store(in), in_memory(small) {}
  BlobStore& store;
  std::size_t in_memory;
  std::string name;  ///< of the staged file; "" while the bytes are in memory
  FileWriter file;
  std::string bytes;
  ParallelSha256 hash{kMostBehind};
  Blob blob;
  bool durable = false, kept = false;
};

BlobStore::Writer::Writer(BlobStore& store, std::size_t in_memory) : state_(new State{store, in_memory}) {}

BlobStore::Writer::Writer(Writer&& other) noexcept = default;

BlobStore::Writer::~Writer() {
  if (!state_ || state_->kept || state_->name.empty()) return;
  if (auto removed = state_->store.staging_.remove_file(own_path(state_->name)); !removed)
    log::warning("a staged blob remains: {}", removed.error().describe(Language::en));
}

Result<void> BlobStore::Writer::spill() {
  State& s = *state_;
  if (!s.name.empty()) return {};
  std::string name = random_hex(16);
  s.file = FileWriter(TRY(s.store.staging_.create_file(own_path(name), 0644)), 0);
  s.name = std::move(name);
  TRY(s.file.write(s.bytes));
  s.bytes = {};
  return {};
}

Result<void> BlobStore::Writer::write(std::string_view bytes) {
  State& s = *state_;
  s.hash.add(bytes);
  s.blob.size += bytes.size();
  if (s.blob.size <= s.in_memory) {
    s.bytes += bytes;
    return {};
  }
  TRY(spill());
  return s.file.write(bytes);
}

Result<Blob> BlobStore::Writer::finish() {
  State& s = *state_;
  s.file.close();
  s.blob.digest = s.hash.digest();
  return s.blob;
}

Result<Fd> BlobStore::Writer::open_again() {
  TRY(spill());
  state_->file.close();
  return state_->store.staging_.open_file(own_path(state_->name), Links::refuse);
}

Result<std::string> BlobStore::Writer::read_back(std::size_t limit) const {
  if (state_->name.empty()) return state_->bytes;
  return state_->store.staging_.read_file(own_path(state_->name), limit);
}

Result<void> BlobStore::Writer::sync() {
  if (state_->durable) return {};
  const Fd bytes = TRY(open_again());
  if (fdatasync(bytes.get()) != 0) return system_error("fdatasync", errno);
  state_->durable = true;
  return {};
}

Result<void> BlobStore::Writer::keep(Lease& lease) {
  TRY(sync());
  TRY(state_->store.take(state_->store.staging_, own_path(state_->name), state_->blob.digest, lease));
  state_->kept = true;
  return {};
}

BlobStore::Lease::~Lease() {
  std::lock_guard lock(store_.mutex_);
  for (const auto& digest : digests_) {
    const auto it = store_.held_.find(digest);
    if (--it->second == 0) store_.held_.erase(it);
  }
}

Result<std::unique_ptr<BlobStore>> BlobStore::open(const std::string& host_path) {
  std::unique_ptr<BlobStore> store(new BlobStore(host_path));
  store->root_ = TRY(Directory::create(host_path, 0711));
  TRY(store->root_.make_directories(own_path("blobs/sha256"), 0755));
  TRY(store->root_.make_directories(own_path(".staging"), 0700));
  store->blobs_ = TRY(store->root_.at(own_path("blobs/sha256")));
  store->staging_ = TRY(store->root_.at(own_path(".staging")));
  TRY(store->staging_.remove_tree(Path()));
  if (!store->root_.exists(own_path("oci-layout")))
    TRY(store->root_.write_file(own_path("oci-layout"), R"({"imageLayoutVersion":"1.0.0"})"));
  return store;
}

bool BlobStore::hold(std::string_view digest, Lease& lease) {
  auto path = blob_path(digest);
  if (!path) return false;
  std::lock_guard lock(mutex_);
  if (!blobs_.exists(*path)) return false;
  if (lease.digests_.emplace(digest).second) ++held_[std::string(digest)];
  return true;
}

Result<std::uint64_t> BlobStore::size_of(std::string_view digest) const {
  return TRY(blobs_.stat(TRY(blob_path(digest)), Links::refuse)).size;
}

Result<Fd> BlobStore::open_blob(std::string_view digest) const {
  return blobs_.open_file(TRY(blob_path(digest)), Links::refuse);
}

Result<std::string> BlobStore::read(std::string_view digest, std::size_t limit) const {
  return blobs_.read_file(TRY(blob_path(digest)), limit);
}

Result<std::string> BlobStore::head(std::string_view digest) const {
  const Fd blob = TRY(open_blob(digest));
  std::string out(4, '\0');
  const ssize_t got = ::pread(blob.get(), out.data(), out.size(), 0);
  if (got < 0) return system_error("read", errno);
  out.resize(static_cast<std::size_t>(got));
  return out;
}

Result<BlobStore::Writer> BlobStore::begin(std::size_t in_memory) {
  Writer writer(*this, in_memory);
  if (in_memory == 0) TRY(writer.spill());
  return writer;
}

Result<Blob> BlobStore::put(std::string_view bytes, Lease& lease) {
  Writer writer = TRY(begin());
  TRY(writer.write(bytes));
  Blob blob = TRY(writer.finish());
  TRY(writer.keep(lease));
  return blob;
}

Result<void> BlobStore::take(const Directory& from, const Path& name, const std::string& digest,
                             Lease& lease) {
  const Path path = TRY(blob_path(digest));
  std::lock_guard lock(mutex_);
  TRY(from.rename(name, blobs_, path, Directory::Replace::files));
  if (lease.digests_.insert(digest).second) ++held_[digest];
  return {};
}

Result<void> BlobStore::sync() const {
  return blobs_.sync();
}

Result<void> BlobStore::write_index(const std::function<Result<std::string>()>& content) {
  std::lock_guard lock(index_mutex_);
  return root_.write_file(own_path("index.json"), TRY(content()));
}

Result<std::uint64_t> BlobStore::collect(const std::vector<std::string>& digests,
                                         const std::function<Result<bool>(const std::string&)>& in_use) {
  std::uint64_t freed = 0;
  for (const std::string& digest : digests) {
    if (TRY(in_use(digest))) continue;
    const Path path = TRY(blob_path(digest));
    // An import holds a blob before it looks for it and lets go after its rows are committed: who is not
    // holding it now has committed, and shows in the second answer, or has not begun.
    std::lock_guard lock(mutex_);
    if (held_.contains(digest) || TRY(in_use(digest))) continue;
    auto info = blobs_.stat(path, Links::refuse);
    if (!info) continue;
    TRY(blobs_.remove_file(path));
    freed += info->size;
  }
  return freed;
}

Result<std::uint64_t> BlobStore::collect(const std::function<Result<bool>(const std::string&)>& in_use) {
  std::uint64_t freed = 0;
  std::string after;
  while (true) {
    const auto page = TRY(blobs_.list(Path(), after, 1000));
    if (page.empty()) return freed;
    after = page.back().name;
    std::vector<std::string> digests;
    for (const auto& entry : page)
      if (is_digest("sha256:" + entry.name)) digests.push_back("sha256:" + entry.name);
    freed += TRY(collect(digests, in_use));
  }
}

}  // namespace lathe::images
