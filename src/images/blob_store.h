#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/directory.h"
#include "base/result.h"

namespace lathe::images {

struct Blob {
  std::string digest;  ///< "sha256:…"
  std::uint64_t size = 0;
};

/// Contents by their digest, on this machine's disk, as an OCI image layout:
/// `oci-layout`, `index.json`, `blobs/sha256/<64 digits>`. A blob appears whole, durable and under the digest
/// of what it holds, or not at all. Safe from any thread.
class BlobStore {
 public:
  /// Makes the layout where absent; removes what was half written when the server ended.
  static Result<std::unique_ptr<BlobStore>> open(const std::string& host_path);

  /// Keeps blobs from being collected while somebody works with them: from before they are looked for until
  /// after the database says who needs them. Used by one thread.
  class Lease {
   public:
    explicit Lease(BlobStore& store) : store_(store) {}
    ~Lease();
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;

   private:
    friend class BlobStore;
    BlobStore& store_;
    std::set<std::string, std::less<>> digests_;
  };

  /// Is it there? If so it stays, at least as long as the lease.
  bool hold(std::string_view digest, Lease& lease);
  Result<std::uint64_t> size_of(std::string_view digest) const;
  Result<Fd> open_blob(std::string_view digest) const;
  Result<std::string> read(std::string_view digest, std::size_t limit) const;
  /// Its first four bytes, or fewer.
  Result<std::string> head(std::string_view digest) const;

  /// A blob on its way in: hashed while it is written. Dropped unless kept. A small one stays in memory until
  /// it is kept. Used by one thread.
  class Writer {
   public:
    Writer(Writer&& other) noexcept;
    ~Writer();
    Result<void> write(std::string_view bytes);
    /// Ends the writing; gives what it has become.
    Result<Blob> finish();
    /// After finish, before keep: the bytes again.
    Result<Fd> open_again();
    Result<std::string> read_back(std::size_t limit) const;
    /// After finish, from any one thread: makes the bytes durable.
    Result<void> sync();
    /// After finish: makes the bytes durable where they are not yet, and puts them into their place (where
    /// they may be already).
    Result<void> keep(Lease& lease);

   private:
    friend class BlobStore;
    explicit Writer(BlobStore& store, std::size_t in_memory);
    Result<void> spill();
    struct State;
    std::unique_ptr<State> state_;
  };
  /// Up to `in_memory` bytes stay in memory.
  Result<Writer> begin(std::size_t in_memory = 0);
  /// A small blob, whole.
  Result<Blob> put(std::string_view bytes, Lease& lease);

  /// Moves a durable file whose bytes have this digest into its place.
  Result<void> take(const Directory& from, const Path& name, const std::string& digest, Lease& lease);

  /// Makes the names of what was kept durable: before the database says that they are there.
  Result<void> sync() const;
  /// What tools that read the directory itself go by.
  /// `content` gives the document; it is asked in the order in which the documents are written.
  Result<void> write_index(const std::function<Result<std::string>()>& content);

  /// Removes every blob that `in_use` does not know and nobody holds; gives the bytes freed. `in_use` is
  /// asked twice, the second time with the blob held fast.
  Result<std::uint64_t> collect(const std::function<Result<bool>(const std::string& digest)>& in_use);
  /// The same for these few.
  Result<std::uint64_t> collect(const std::vector<std::string>& digests,
                                const std::function<Result<bool>(const std::string& digest)>& in_use);

  const std::string& host_path() const { return host_path_; }

 private:
  explicit BlobStore(std::string host_path) : host_path_(std::move(host_path)) {}

  std::string host_path_;
  Directory root_, blobs_, staging_;
  std::mutex mutex_;  ///< between looking whether a blob is there and holding or removing it
  std::map<std::string, int, std::less<>> held_;
  std::mutex index_mutex_;
};

/// SHA-256 while bytes go by.
class Sha256 {
 public:
  Sha256();
  void add(std::string_view bytes);
  /// "sha256:…"; nothing may be added after it.
  std::string digest();

 private:
  std::shared_ptr<void> context_;
};

}  // namespace lathe::images
