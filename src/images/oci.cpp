#include "images/oci.h"

#include <boost/json.hpp>

namespace lathe::images::oci {

namespace {

boost::json::object to_object(const Descriptor& descriptor) {
  return {{"mediaType", descriptor.mediaType}, {"digest", descriptor.digest}, {"size", descriptor.size}};
}

}  // namespace

std::string_view own_architecture() {
#if defined(__x86_64__)
  return "amd64";
#elif defined(__aarch64__)
  return "arm64";
#elif defined(__powerpc64__)
  return "ppc64le";
#elif defined(__s390x__)
  return "s390x";
#elif defined(__riscv)
  return "riscv64";
#else
  return "unknown";
#endif
}

const Descriptor* for_this_machine(const Index& index) {
  const Descriptor* unsaid = nullptr;
  for (const Descriptor& d : index.manifests) {
    if (!d.platform && !unsaid) unsaid = &d;
    if (d.platform && d.platform->os == "linux" && d.platform->architecture == own_architecture()) return &d;
  }
  return unsaid;
}

Result<ImageConfig> process_of(std::string_view config_document) {
  Config document = TRY(json::parse_as<Config>(config_document));
  ImageConfig out;
  if (!document.config) return out;
  Process& process = *document.config;
  out.entrypoint = std::move(process.Entrypoint);
  out.cmd = std::move(process.Cmd);
  out.env = std::move(process.Env);
  out.working_dir = std::move(process.WorkingDir);
  out.user = std::move(process.User);
  if (const auto* ports = process.ExposedPorts.if_object())
    for (const auto& port : *ports) out.exposed_ports.emplace_back(port.key());
  return out;
}

std::string write_manifest(const Descriptor& config, const std::vector<Descriptor>& layers) {
  boost::json::array list;
  for (const Descriptor& layer : layers) list.push_back(to_object(layer));
  boost::json::object manifest{{"schemaVersion", 2}, {"mediaType", kManifest}};
  manifest["config"] = to_object(config);
  manifest["layers"] = std::move(list);
  return json::print(std::move(manifest));
}

std::string write_index(const std::vector<IndexEntry>& entries) {
  boost::json::array list;
  for (const IndexEntry& entry : entries)
    list.push_back({{"mediaType", entry.media_type},
                    {"digest", entry.digest},
                    {"size", entry.size},
                    {"annotations", {{"org.opencontainers.image.ref.name", entry.reference}}}});
  boost::json::object index{{"schemaVersion", 2}, {"mediaType", kIndex}};
  index["manifests"] = std::move(list);
  return json::print(std::move(index));
}

std::string annotation(const Descriptor& descriptor, std::string_view name) {
  const auto* all = descriptor.annotations.if_object();
  const auto* value = all ? all->if_contains(name) : nullptr;
  const auto* text = value ? value->if_string() : nullptr;
  return text ? std::string(*text) : std::string();
}

}  // namespace lathe::images::oci
