#include "images/registry/pushed_manifest.h"

#include <boost/json.hpp>

#include "images/oci.h"
#include "images/reference.h"
#include "images/registry/problem.h"

namespace lathe::images::registry {

namespace {

constexpr std::string_view kDockerConfig = "application/vnd.docker.container.image.v1+json";

/// What a descriptor says beyond oci::Descriptor.
struct Layer : oci::Descriptor {
  std::vector<std::string> urls;
};
void fields(Fields& f, Layer& l) {
  fields(f, static_cast<oci::Descriptor&>(l));
  f.field("urls", l.urls, {.max_length = 4096});
}

struct Document {
  std::int64_t schemaVersion = 0;
  std::string mediaType, artifactType;
  std::optional<oci::Descriptor> config, subject;
  std::vector<Layer> layers;
  std::vector<oci::Descriptor> manifests;
  Json annotations;
};
void fields(Fields& f, Document& d) {
  f.field("schemaVersion", d.schemaVersion, {.required = true, .min = 2, .max = 2});
  f.field("mediaType", d.mediaType);
  f.field("artifactType", d.artifactType);
  f.field("config", d.config);
  f.field("subject", d.subject);
  f.field("layers", d.layers, {.max_items = 5000});
  f.field("manifests", d.manifests, {.max_items = 5000});
  f.field("annotations", d.annotations);
}

bool is_index(std::string_view type) {
  return type == oci::kIndex || type == oci::kDockerIndex;
}

bool is_known(std::string_view type) {
  return type == oci::kManifest || type == oci::kDockerManifest || is_index(type);
}

Result<void> check(const oci::Descriptor& d) {
  if (is_digest(d.digest)) return {};
  return wrong_manifest({"不是 sha256 摘要：" + d.digest, "has a digest that is not sha256: " + d.digest});
}

void add(std::vector<Blob>& blobs, const oci::Descriptor& d) {
  for (const Blob& there : blobs)
    if (there.digest == d.digest) return;
  blobs.push_back({d.digest, static_cast<std::uint64_t>(d.size)});
}

Contents::Kind kind_of(const Document& d, std::string_view type) {
  if (is_index(type)) return Contents::Kind::index;
  const std::string_view config = d.config->mediaType;
  return config == oci::kConfig || config == kDockerConfig ? Contents::Kind::image : Contents::Kind::artifact;
}

/// The specification's: the artifact's own word, else the configuration's media type.
std::string artifact_type(const Document& d) {
  if (!d.artifactType.empty() || !d.config) return d.artifactType;
  return d.config->mediaType;
}

}  // namespace

Result<PushedManifest> read_manifest(std::string_view document, std::string_view media_type) {
  auto parsed = json::parse_as<Document>(document);
  if (!parsed)
    return wrong_manifest({"清单有误：" + parsed.error().describe(Language::zh),
                           "the manifest is wrong: " + parsed.error().describe(Language::en)});
  const Document& d = *parsed;
  const std::string type(d.mediaType.empty() ? media_type : d.mediaType);
  if (!media_type.empty() && type != media_type)
    return wrong_manifest({"清单的 mediaType 与 Content-Type 不一致", "mediaType and Content-Type differ"});
  if (!is_known(type))
    return wrong_manifest({"不支持的清单类型：" + type, "this kind of manifest is not supported: " + type});
  PushedManifest out;
  Sha256 hash;
  hash.add(document);
  out.contents.media_type = type;
  out.contents.manifest = {hash.digest(), document.size()};
  out.contents.blobs = {out.contents.manifest};
  if (is_index(type)) {
    for (const auto& child : d.manifests) {
      TRY(check(child));
      out.children.push_back(child.digest);
      add(out.contents.blobs, child);
    }
  } else {
    if (!d.config) return wrong_manifest({"缺少 config", "has no config"});
    TRY(check(*d.config));
    out.contents.config_digest = d.config->digest;
    add(out.needed, *d.config);
    for (const auto& layer : d.layers) {
      TRY(check(layer));
      if (layer.urls.empty()) add(out.needed, layer);
    }
    for (const Blob& blob : out.needed) out.contents.blobs.push_back(blob);
  }
  out.contents.kind = kind_of(d, type);
  out.contents.artifact_type = artifact_type(d);
  out.contents.annotations = d.annotations.is_object() ? d.annotations : Json(nullptr);
  if (d.subject) {
    TRY(check(*d.subject));
    out.contents.subject = d.subject->digest;
  }
  for (const Blob& blob : out.contents.blobs) out.contents.size += blob.size;
  return out;
}

}  // namespace lathe::images::registry
