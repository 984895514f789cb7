#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fields.h"
#include "base/json.h"
#include "images/images.h"

/// The documents of an image, as the OCI image specification 1.1 and Docker write them.
namespace lathe::images::oci {

inline constexpr std::string_view kManifest = "application/vnd.oci.image.manifest.v1+json";
inline constexpr std::string_view kIndex = "application/vnd.oci.image.index.v1+json";
inline constexpr std::string_view kConfig = "application/vnd.oci.image.config.v1+json";
inline constexpr std::string_view kLayer = "application/vnd.oci.image.layer.v1.tar";
inline constexpr std::string_view kDockerManifest = "application/vnd.docker.distribution.manifest.v2+json";
inline constexpr std::string_view kDockerIndex = "application/vnd.docker.distribution.manifest.list.v2+json";
inline constexpr int kMaxIndexDepth = 4;              ///< indexes of indexes
inline constexpr std::size_t kMaxDocument = 4 << 20;  ///< bytes of a manifest or configuration

inline constexpr Rule kText{.max_length = 1 << 16};

struct Platform {
  std::string architecture, os, variant;
};
inline void fields(Fields& f, Platform& p) {
  f.field("architecture", p.architecture);
  f.field("os", p.os);
  f.field("variant", p.variant);
}

struct Descriptor {
  std::string mediaType, digest;
  std::int64_t size = 0;
  std::optional<Platform> platform;
  Json annotations;  ///< null or an object of strings
};
inline void fields(Fields& f, Descriptor& d) {
  f.field("mediaType", d.mediaType);
  f.field("digest", d.digest, {.required = true});
  f.field("size", d.size, {.required = true, .min = 0});
  f.field("platform", d.platform);
  f.field("annotations", d.annotations);
}

struct Index {
  std::vector<Descriptor> manifests;
};
inline void fields(Fields& f, Index& i) {
  f.field("manifests", i.manifests, {.max_items = 10'000});
}

struct Manifest {
  std::string mediaType;
  Descriptor config;
  std::vector<Descriptor> layers;
};
inline void fields(Fields& f, Manifest& m) {
  f.field("mediaType", m.mediaType);
  f.field("config", m.config, {.required = true});
  f.field("layers", m.layers, {.max_items = 1000});
}

/// One image of a docker-archive's manifest.json, which is a list of these.
struct Saved {
  std::string Config;
  std::vector<std::string> RepoTags;
  std::vector<std::string> Layers;
};
inline void fields(Fields& f, Saved& s) {
  f.field("Config", s.Config, {.required = true, .max_length = 4096});
  f.field("RepoTags", s.RepoTags, kText);
  f.field("Layers", s.Layers, {.max_length = 4096});
}

struct Process {
  std::vector<std::string> Entrypoint, Cmd, Env;
  std::string WorkingDir, User;
  Json ExposedPorts;
};
inline void fields(Fields& f, Process& p) {
  f.field("Entrypoint", p.Entrypoint, kText);
  f.field("Cmd", p.Cmd, kText);
  f.field("Env", p.Env, kText);
  f.field("WorkingDir", p.WorkingDir, kText);
  f.field("User", p.User, kText);
  f.field("ExposedPorts", p.ExposedPorts);
}

struct RootFs {
  std::vector<std::string> diff_ids;
};
inline void fields(Fields& f, RootFs& r) {
  f.field("diff_ids", r.diff_ids);
}

struct Config {
  std::string architecture, os;
  std::optional<Process> config;
  RootFs rootfs;
};
inline void fields(Fields& f, Config& c) {
  f.field("architecture", c.architecture);
  f.field("os", c.os);
  f.field("config", c.config);
  f.field("rootfs", c.rootfs);
}

/// This machine, as platforms name it: "amd64", "arm64", …
std::string_view own_architecture();
/// Of an index, the manifest for this machine (Linux, its architecture), or one that does not say what it is
/// for; null if there is none. Lives as long as the index.
const Descriptor* for_this_machine(const Index& index);
/// What the configuration document says about the process.
Result<ImageConfig> process_of(std::string_view config_document);
/// An OCI manifest for layers and a configuration that came without one.
std::string write_manifest(const Descriptor& config, const std::vector<Descriptor>& layers);
/// The layout's index.json: manifests by `org.opencontainers.image.ref.name`.
struct IndexEntry {
  std::string media_type, digest, reference;
  std::int64_t size = 0;
};
std::string write_index(const std::vector<IndexEntry>& entries);
/// A descriptor's annotation; "" if it has none of that name.
std::string annotation(const Descriptor& descriptor, std::string_view name);

}  // namespace lathe::images::oci
