#include "images/archive_import.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <future>
#include <map>
#include <optional>

#include "images/oci.h"
#include "images/reference.h"

namespace lathe::images {

namespace {

constexpr std::string_view kBlobs = "blobs/sha256/";
constexpr int kMaxIndexDepth = 3;
constexpr std::size_t kSmall = 64 << 10;  // entries that need no file until it is known that they are wanted
constexpr std::size_t kMostInMemory = 16 << 20;
constexpr std::uint64_t kLarge = 4 << 20;  // worth remembering over the server's end
constexpr std::size_t kMostSyncing = 4;    // entries on their way to the disk

std::string_view base_of(std::string_view name) {
  const auto slash = name.rfind('/');
  return slash == std::string_view::npos ? name : name.substr(slash + 1);
}

/// The digest that an entry's name promises; "" if it promises none.
std::string promised_digest(std::string_view name) {
  if (name.starts_with(kBlobs)) {
    name.remove_prefix(kBlobs.size());
  } else if (name.ends_with(".json") && name.find('/') == std::string_view::npos) {
    name.remove_suffix(5);  // the configuration, as docker names it
  } else {
    return "";
  }
  std::string digest = "sha256:" + std::string(name);
  return is_digest(digest) ? digest : "";
}

/// Files of old docker-archives that say again what manifest.json says.
bool is_superfluous(std::string_view name) {
  const auto base = base_of(name);
  return name == "repositories" || (name != base && (base == "VERSION" || base == "json"));
}

Error missing(std::string_view name) {
  const std::string text(name);
  return bad_archive({"归档不完整，缺少 " + text, "is not complete: " + text + " is missing"});
}

/// The first bytes of packed data tell how it is packed.
std::string_view layer_suffix(std::string_view head) {
  if (head.starts_with("\x1f\x8b")) return "+gzip";
  if (head.starts_with("\x28\xb5\x2f\xfd")) return "+zstd";
  return "";
}

class Import {
 public:
  Import(BlobStore& store, BlobStore::Lease& lease, ImportRequest request)
      : store_(store), lease_(lease), request_(std::move(request)) {}

  Result<Contents> run() {
    TRY(take_entries());
    TRY(put_finished(0));
    const bool layout = find("index.json") && find("oci-layout");
    if (!layout && !find("manifest.json"))
      return bad_archive({"既没有 manifest.json，也没有 index.json：不是镜像归档",
                          "has neither manifest.json nor index.json: it is not an image archive"});
    Contents image = TRY(layout ? read_layout() : read_docker_archive());
    for (const Blob& blob : image.blobs) image.size += blob.size;
    for (const Blob& blob : image.blobs) TRY(keep(blob));
    TRY(store_.sync());
    return image;
  }

 private:
  struct Entry {
    Blob blob;
    std::optional<BlobStore::Writer> staged;  ///< absent: the store has it
    std::string head;                         ///< the first bytes
    std::string link;                         ///< of a link: where it leads
    std::future<Result<void>> synced;         ///< valid while a large one goes to the disk
  };

  // One pass over the archive.

  Result<void> take_entries() {
    auto progress = [this](std::uint64_t bytes) { return request_.progress(read_ = bytes); };
    auto reader = TRY(ArchiveReader::open(std::move(request_.file), request_.limits, progress));
    while (auto entry = TRY(reader->next())) {
      if (entry->kind == ArchiveEntry::Kind::folder || is_superfluous(entry->name)) continue;
      if (entries_.contains(entry->name))
        return bad_archive({"条目重复：" + entry->name, "has an entry twice: " + entry->name});
      Entry& taken = entries_[entry->name];
      taken.link = entry->target;
      if (entry->kind != ArchiveEntry::Kind::file || TRY(skip_finished(*entry, taken))) continue;
      TRY(take_file(*reader, entry->name, taken));
      if (!taken.staged) continue;
      if (taken.blob.size >= kLarge) {
        TRY(finish_large(entry->name, taken));
      } else {
        staged_by_digest_.emplace(taken.blob.digest, &*taken.staged);
      }
    }
    return {};
  }

  /// An earlier attempt has been over this one.
  Result<bool> skip_finished(const ArchiveEntry& described, Entry& entry) {
    const auto it = request_.finished.find(described.name);
    if (it == request_.finished.end() || it->second.size != described.size) return false;
    if (!store_.hold(it->second.digest, lease_)) return false;
    TRY(request_.reserve(described.size));
    entry.blob = it->second;
    entry.head = TRY(store_.head(entry.blob.digest));
    return true;
  }

  /// The disk takes its time while the next entry is read already.
  Result<void> finish_large(const std::string& name, Entry& entry) {
    BlobStore::Writer& writer = *entry.staged;
    entry.synced = std::async(std::launch::async, [&writer] { return writer.sync(); });
    syncing_.push_back(name);
    return put_finished(kMostSyncing);
  }

  /// Puts large entries that are durable into the store, waiting while more than `most` are not.
  Result<void> put_finished(std::size_t most) {
    while (!syncing_.empty()) {
      Entry& entry = entries_.find(syncing_.front())->second;
      const bool wait = syncing_.size() > most;
      if (!wait && entry.synced.wait_for(std::chrono::seconds(0)) != std::future_status::ready) return {};
      TRY(entry.synced.get());
      TRY(entry.staged->keep(lease_));
      entry.staged.reset();
      TRY(store_.sync());
      TRY(request_.on_finished(syncing_.front(), entry.blob));
      syncing_.pop_front();
    }
    return {};
  }

  Result<void> take_file(ArchiveReader& reader, const std::string& name, Entry& entry) {
    const std::string promised = promised_digest(name);
    if (!promised.empty() && store_.hold(promised, lease_)) {
      TRY(hash_only(reader, entry));
    } else {
      TRY(stage(reader, entry));
    }
    if (promised.empty() || promised == entry.blob.digest) return {};
    return bad_archive({"内容与摘要不符：" + name, "does not match its digest: " + name});
  }

  Result<void> hash_only(ArchiveReader& reader, Entry& entry) {
    Sha256 hash;
    for (auto bytes = TRY(reader.read()); !bytes.empty(); bytes = TRY(reader.read())) {
      if (entry.head.empty()) entry.head = bytes.substr(0, 4);
      hash.add(bytes);
      entry.blob.size += bytes.size();
    }
    entry.blob.digest = hash.digest();
    return {};
  }

  Result<void> stage(ArchiveReader& reader, Entry& entry) {
    const bool small = in_memory_ + kSmall <= kMostInMemory;
    entry.staged.emplace(TRY(store_.begin(small ? kSmall : 0)));
    for (auto bytes = TRY(reader.read()); !bytes.empty(); bytes = TRY(reader.read())) {
      if (entry.head.empty()) entry.head = bytes.substr(0, 4);
      TRY(request_.reserve(bytes.size()));
      TRY(entry.staged->write(bytes));
    }
    entry.blob = TRY(entry.staged->finish());
    if (small && entry.blob.size <= kSmall) in_memory_ += entry.blob.size;
    return {};
  }

  // What the entries are.

  Entry* find(std::string_view name) {
    auto it = entries_.find(name);
    for (int hops = 0; it != entries_.end() && !it->second.link.empty(); ++hops) {
      if (hops == 8) return nullptr;
      it = entries_.find(it->second.link);
    }
    return it == entries_.end() ? nullptr : &it->second;
  }

  /// A small file's text.
  Result<std::string> text_of(const Entry& entry, std::string_view name) {
    if (entry.blob.size > oci::kMaxDocument)
      return bad_archive({std::string(name) + " 过大", "has too large a " + std::string(name)});
    if (!entry.staged) return store_.read(entry.blob.digest, oci::kMaxDocument);
    return entry.staged->read_back(oci::kMaxDocument);
  }

  template <class T>
  Result<T> document(std::string_view name) {
    const Entry* entry = find(name);
    if (!entry) return missing(name);
    const std::string text = TRY(text_of(*entry, name));
    auto parsed = json::parse_as<T>(text);
    if (parsed) return parsed;
    return bad_archive({std::string(name) + " 有误：" + parsed.error().describe(Language::zh),
                        "has a wrong " + std::string(name) + ": " + parsed.error().describe(Language::en)});
  }

  // OCI archives.

  Result<Contents> read_layout() {
    const auto index = TRY(document<oci::Index>("index.json"));
    return read_manifest(TRY(choose(index, 0)));
  }

  static bool is_index(const oci::Descriptor& d) {
    return d.mediaType == oci::kIndex || d.mediaType == oci::kDockerIndex;
  }

  bool is_wanted(const oci::Descriptor& d) const {
    for (const char* name : {"org.opencontainers.image.ref.name", "io.containerd.image.name"}) {
      const std::string value = oci::annotation(d, name);
      if (value == request_.tag || value.ends_with(":" + request_.tag)) return true;
    }
    return false;
  }

  /// One of several: the one for this machine, else the one of the wanted tag, else the only one.
  Result<oci::Descriptor> choose(const oci::Index& index, int depth) {
    std::vector<oci::Descriptor> fitting;
    for (const auto& d : index.manifests) {
      const bool foreign =
          d.platform && (d.platform->os != "linux" || d.platform->architecture != oci::own_architecture());
      if (!foreign) fitting.push_back(d);
    }
    if (fitting.empty())
      return bad_archive({"没有适用于本机（linux/" + std::string(oci::own_architecture()) + "）的镜像",
                          "holds no image for this machine, linux/" + std::string(oci::own_architecture())});
    auto wanted = std::find_if(fitting.begin(), fitting.end(), [&](const auto& d) { return is_wanted(d); });
    const bool same = std::all_of(fitting.begin(), fitting.end(),
                                  [&](const auto& d) { return d.digest == fitting.front().digest; });
    if (wanted == fitting.end() && (same || depth > 0)) wanted = fitting.begin();
    if (wanted == fitting.end())
      return bad_archive(
          {"含有多个镜像，请用 imageTag 指明其一", "holds several images; name one by its tag"});
    if (!is_index(*wanted)) return *wanted;
    if (depth == kMaxIndexDepth) return bad_archive({"索引嵌套过深", "nests its indexes too deep"});
    return choose(TRY(document<oci::Index>(blob_name(wanted->digest))), depth + 1);
  }

  static std::string blob_name(std::string_view digest) {
    return std::string(kBlobs) + std::string(is_digest(digest) ? hex_of(digest) : digest);
  }

  Result<Blob> described(const oci::Descriptor& d) {
    if (!is_digest(d.digest))
      return bad_archive({"不支持的摘要：" + d.digest, "has a digest that is not sha256: " + d.digest});
    Blob blob{d.digest, static_cast<std::uint64_t>(d.size)};
    // What the archive itself does not hold is missing, even if the store has it: it may be another user's.
    const Entry* entry = find(blob_name(d.digest));
    if (!entry) return missing(d.digest);
    if (entry->blob.size == blob.size) return blob;
    return bad_archive({"大小不符：" + d.digest, "is not of the size it says: " + d.digest});
  }

  Result<Contents> read_manifest(const oci::Descriptor& descriptor) {
    Contents image;
    image.manifest = TRY(described(descriptor));
    const auto manifest = TRY(document<oci::Manifest>(blob_name(descriptor.digest)));
    image.media_type = !manifest.mediaType.empty() ? manifest.mediaType : descriptor.mediaType;
    if (image.media_type.empty()) image.media_type = oci::kManifest;
    if (image.media_type != oci::kManifest && image.media_type != oci::kDockerManifest)
      return bad_archive({"不支持的清单类型：" + image.media_type,
                          "has a manifest of a kind that is not supported: " + image.media_type});
    const Blob config = TRY(described(manifest.config));
    image.config_digest = config.digest;
    image.blobs = {image.manifest, config};
    const auto document_of_config = TRY(document<oci::Config>(blob_name(config.digest)));
    if (document_of_config.rootfs.diff_ids.size() != manifest.layers.size())
      return bad_archive({"配置中的层数与清单不符", "has another number of layers in its configuration"});
    for (const auto& layer : manifest.layers) add_blob(image, TRY(described(layer)));
    return image;
  }

  static void add_blob(Contents& image, Blob blob) {
    for (const Blob& there : image.blobs)
      if (there.digest == blob.digest) return;
    image.blobs.push_back(std::move(blob));
  }

  // Docker archives.

  Result<oci::Saved> choose_saved() {
    const std::string text = TRY(text_of(*find("manifest.json"), "manifest.json"));
    auto list = json::parse(text);
    const auto* array = list ? list->if_array() : nullptr;
    if (!array || array->empty())
      return bad_archive({"manifest.json 不是非空数组", "has a manifest.json that is not a list of images"});
    std::vector<oci::Saved> images;
    for (const Json& item : *array) {
      auto saved = json::read<oci::Saved>(item);
      if (!saved)
        return bad_archive({"manifest.json 有误：" + saved.error().describe(Language::zh),
                            "has a wrong manifest.json: " + saved.error().describe(Language::en)});
      images.push_back(*std::move(saved));
    }
    if (images.size() == 1) return images.front();
    for (const auto& image : images)
      for (const auto& tag : image.RepoTags)
        if (split_reference(tag).tag == request_.tag) return image;
    return bad_archive({"含有多个镜像，请用 imageTag 指明其一", "holds several images; name one by its tag"});
  }

  Result<Contents> read_docker_archive() {
    const oci::Saved saved = TRY(choose_saved());
    const std::string config_name = TRY(inside_name(saved.Config));
    const auto config = TRY(document<oci::Config>(config_name));
    if (config.rootfs.diff_ids.size() != saved.Layers.size())
      return bad_archive({"配置中的层数与 manifest.json 不符",
                          "has another number of layers in its configuration than in manifest.json"});
    Contents image;
    image.media_type = oci::kManifest;
    const Blob config_blob = find(config_name)->blob;
    image.config_digest = config_blob.digest;
    image.blobs = {config_blob};
    std::vector<oci::Descriptor> layers;
    for (std::size_t i = 0; i < saved.Layers.size(); ++i) {
      const std::string name = TRY(inside_name(saved.Layers[i]));
      Entry* entry = find(name);
      if (!entry) return missing(name);
      const std::string suffix(layer_suffix(entry->head));
      TRY(check_layer(name, *entry, suffix, config.rootfs.diff_ids[i]));
      layers.push_back({std::string(oci::kLayer) + suffix,
                        entry->blob.digest,
                        static_cast<std::int64_t>(entry->blob.size),
                        {},
                        {}});
      add_blob(image, entry->blob);
    }
    const oci::Descriptor config_descriptor{
        std::string(oci::kConfig), config_blob.digest, static_cast<std::int64_t>(config_blob.size), {}, {}};
    image.manifest = TRY(store_.put(oci::write_manifest(config_descriptor, layers), lease_));
    image.blobs.insert(image.blobs.begin(), image.manifest);
    return image;
  }

  Result<std::string> inside_name(const std::string& name) {
    if (entries_.contains(name)) return name;
    if (name.starts_with("./")) return name.substr(2);
    return missing(name);
  }

  /// The configuration knows a layer by the digest of its plain tar.
  Result<void> check_layer(const std::string& name, Entry& entry, const std::string& suffix,
                           const std::string& diff_id) {
    std::string plain = entry.blob.digest;
    if (!suffix.empty()) {
      Fd file = TRY(entry.staged ? entry.staged->open_again() : store_.open_blob(entry.blob.digest));
      plain = TRY(unpacked_digest(std::move(file), request_.limits,
                                  [this](std::uint64_t) { return request_.progress(read_); }));
    }
    if (plain == diff_id) return {};
    return bad_archive({"镜像层与配置中的摘要不符：" + name,
                        "has a layer that does not match its digest in the configuration: " + name});
  }

  /// Puts into its place what the store did not have before.
  Result<void> keep(const Blob& blob) {
    const auto staged = staged_by_digest_.find(blob.digest);
    if (store_.hold(blob.digest, lease_) || staged == staged_by_digest_.end()) return {};
    return staged->second->keep(lease_);
  }

  BlobStore& store_;
  BlobStore::Lease& lease_;
  ImportRequest request_;
  std::uint64_t read_ = 0;  ///< bytes of the archive
  std::size_t in_memory_ = 0;
  std::map<std::string, Entry, std::less<>> entries_;
  std::deque<std::string> syncing_;  ///< names, in order
  std::map<std::string, BlobStore::Writer*, std::less<>> staged_by_digest_;
};

}  // namespace

Result<Contents> import_archive(BlobStore& store, BlobStore::Lease& lease, ImportRequest request) {
  return Import(store, lease, std::move(request)).run();
}

}  // namespace lathe::images
