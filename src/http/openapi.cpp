#include "http/openapi.h"

#include <boost/json.hpp>
#include <map>
#include <set>

namespace lathe::http {

namespace bj = boost::json;

namespace {

std::set<std::string, std::less<>> captures_of(std::string_view path) {
  std::set<std::string, std::less<>> out;
  for (auto open = path.find('{'); open != std::string_view::npos; open = path.find('{', open + 1)) {
    std::string_view inner = path.substr(open + 1, path.find('}', open) - open - 1);
    if (inner.ends_with("...")) inner.remove_suffix(3);
    out.emplace(inner);
  }
  return out;
}

std::string document_path(std::string path) {
  for (auto at = path.find("...}"); at != std::string::npos; at = path.find("...}")) path.erase(at, 3);
  return path;
}

std::string lower_method(Method method) {
  std::string out(name(method));
  for (char& c : out) c = static_cast<char>(c | 0x20);
  return out;
}

std::string_view access_name(Access access) {
  switch (access) {
    case Access::open:
      return "open";
    case Access::user:
      return "user";
    case Access::admin:
      return "admin";
  }
  return "";
}

bool has_body(const Route& route) {
  return route.method == Method::post || route.method == Method::put || route.method == Method::patch;
}

bj::object parameter(std::string_view where, std::string_view name, Json schema, bool required) {
  bj::object out{{"in", where}, {"name", name}, {"required", required}};
  if (schema.is_object()) {
    if (const auto* doc = schema.get_object().if_contains("description")) out["description"] = *doc;
    schema.get_object().erase("description");
  }
  out["schema"] = std::move(schema);
  return out;
}

bool is_multipart(const Documented& doc) {
  return doc.request_type == "multipart/form-data";
}

/// Splits the fields of a route between path, query and body.
struct Split {
  bj::array parameters;
  bj::object body;  ///< a schema; without properties if nothing is left for the body
};

Split split_fields(const Documented& doc) {
  const auto captures = captures_of(doc.route->path);
  Split out;
  std::set<std::string, std::less<>> required;
  const bj::object empty;
  const bj::object& input = doc.input.is_object() ? doc.input.get_object() : empty;
  if (const auto* list = input.if_contains("required"))
    for (const auto& item : list->as_array()) required.emplace(item.as_string());
  const auto* properties = input.if_contains("properties");
  std::set<std::string, std::less<>> seen;
  bj::object body_properties;
  bj::array body_required;
  if (properties) {
    for (const auto& property : properties->as_object()) {
      const std::string_view key = property.key();
      if (captures.contains(key)) {
        seen.emplace(key);
        out.parameters.push_back(parameter("path", key, property.value(), true));
      } else if (!has_body(*doc.route) || (doc.raw && !is_multipart(doc))) {
        out.parameters.push_back(parameter("query", key, property.value(), required.contains(key)));
      } else {
        body_properties[key] = property.value();
        if (required.contains(key)) body_required.push_back(Json(key));
      }
    }
  }
  for (const auto& capture : captures)
    if (!seen.contains(capture))
      out.parameters.push_back(parameter("path", capture, bj::object{{"type", "string"}}, true));
  if (!body_properties.empty()) {
    out.body["type"] = "object";
    if (!body_required.empty()) out.body["required"] = std::move(body_required);
    out.body["properties"] = std::move(body_properties);
  }
  return out;
}

/// An answer's schema from a struct's: everything is always there, and the bounds are those of requests.
void describe_answer(Json& schema, bool local_times) {
  auto* object = schema.if_object();
  if (!object) return;
  for (const auto* bound : {"maxLength", "maxItems", "pattern", "minimum", "maximum", "required"})
    object->erase(bound);
  if (local_times && object->contains("format")) {
    object->erase("format");
    (*object)["pattern"] = R"(^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$)";
  }
  if (auto* properties = object->if_contains("properties")) {
    bj::array names;
    for (auto& property : properties->get_object()) {
      names.emplace_back(property.key());
      describe_answer(property.value(), local_times);
    }
    (*object)["required"] = std::move(names);
  }
  if (auto* items = object->if_contains("items")) describe_answer(*items, local_times);
}

/// Flat forms may be sent as forms, too.
bool is_flat(const bj::object& schema) {
  for (const auto& property : schema.at("properties").get_object()) {
    const auto* type = property.value().get_object().if_contains("type");
    if (!type || *type == "object" || *type == "array" || type->is_array()) return false;
  }
  return true;
}

bj::object content(std::string_view type, Json schema) {
  bj::object media;
  media["schema"] = std::move(schema);
  bj::object out;
  out[type] = std::move(media);
  return out;
}

bj::object error_answer(const Envelope& envelope, std::string_view description) {
  const bool bare = &envelope == &kBare;
  bj::object schema;
  schema["$ref"] =
      "#/components/schemas/" + std::string(bare ? "Problem" : "Failure_" + std::string(envelope.name));
  return {{"description", description},
          {"content", content(bare ? "application/problem+json" : "application/json", std::move(schema))}};
}

bj::object answers(const Documented& doc) {
  const Route& route = *doc.route;
  const bool bare = route.envelope == &kBare;
  bj::object out;
  if (doc.raw) {
    Json schema = is_multipart(doc) ? envelope_schema(*route.envelope, bj::object{{"type", "null"}})
                                    : Json(bj::object());
    out[std::to_string(route.success_status)] =
        bj::object{{"description", "Success"}, {"content", content(doc.answer_type, std::move(schema))}};
  } else if (bare && doc.output.is_null()) {
    out["204"] = bj::object{{"description", "Done"}};
  } else {
    Json payload = doc.output.is_null() ? Json(bj::object{{"type", "null"}}) : doc.output;
    describe_answer(payload, !bare);
    out[std::to_string(route.success_status)] = bj::object{
        {"description", route.success_message},
        {"content", content("application/json", envelope_schema(*route.envelope, std::move(payload)))}};
  }
  out["400"] = error_answer(*route.envelope, "A field is wrong; every wrong field is named");
  if (route.access != Access::open)
    out["401"] = error_answer(*route.envelope, "No token, or not a valid one");
  if (route.access == Access::admin) out["403"] = error_answer(*route.envelope, "Administrators only");
  out["default"] = error_answer(*route.envelope, "Anything else that went wrong, by its status");
  return out;
}

bj::object operation(const Documented& doc) {
  const Route& route = *doc.route;
  bj::object out;
  out["operationId"] = route.id;
  out["tags"] = bj::array({Json(route.tag)});
  out["summary"] = route.summary;
  std::string description(route.summary);
  if (!route.section.empty())
    description += ". Section " + std::string(route.section) +
                   " of the documented API; answers with and without a leading /api.";
  out["description"] = description;
  Split split = split_fields(doc);
  if (route.method == Method::post && route.access != Access::open && !is_multipart(doc))
    split.parameters.push_back(
        parameter("header", "Idempotency-Key",
                  bj::object{{"type", "string"},
                             {"description", "The same request sent again with the same key is done once"}},
                  false));
  if (!split.parameters.empty()) out["parameters"] = std::move(split.parameters);
  if (doc.raw && !doc.request_type.empty()) {
    Json schema = is_multipart(doc) ? Json(std::move(split.body)) : Json(bj::object());
    out["requestBody"] =
        bj::object{{"required", true}, {"content", content(doc.request_type, std::move(schema))}};
  } else if (!split.body.empty()) {
    const bool required = split.body.contains("required");
    bj::object types = content("application/json", split.body);
    if (is_flat(split.body)) {
      const auto json_type = types.at("application/json");
      types["application/x-www-form-urlencoded"] = json_type;
    }
    out["requestBody"] = bj::object{{"required", required}, {"content", std::move(types)}};
  }
  out["responses"] = answers(doc);
  if (route.access == Access::open) out["security"] = bj::array();
  out["x-access"] = access_name(route.access);
  if (!route.section.empty()) out["x-section"] = route.section;
  return out;
}

bj::object components(const std::set<const Envelope*>& used) {
  bj::object schemas;
  for (const Envelope* envelope : used) {
    if (envelope == &kBare) {
      schemas["Problem"] =
          bj::parse(R"({"type":"object","required":["title","status","detail","code","violations"],
        "properties":{"type":{"type":"string"},"title":{"type":"string"},"status":{"type":"integer"},
        "detail":{"type":"string"},"code":{"type":"string"},"requestId":{"type":"string"},
        "violations":{"type":"array","items":{"type":"object","properties":{
          "field":{"type":"string"},"message":{"type":"string"}}}}}})");
    } else {
      schemas["Failure_" + std::string(envelope->name)] =
          envelope_schema(*envelope, bj::object{{"type", "null"}});
    }
  }
  bj::object bearer{
      {"type", "http"}, {"scheme", "bearer"}, {"description", "A session's token or an API key"}};
  return {{"schemas", std::move(schemas)}, {"securitySchemes", bj::object{{"bearer", std::move(bearer)}}}};
}

}  // namespace

Json make_openapi(const std::vector<Documented>& routes) {
  bj::object paths;
  std::map<std::string_view, bool> tags;
  std::set<const Envelope*> envelopes;
  for (const auto& doc : routes) {
    auto& item = paths[document_path(doc.route->path)];
    if (!item.is_object()) item.emplace_object();
    item.get_object()[lower_method(doc.route->method)] = operation(doc);
    tags[doc.route->tag] = true;
    envelopes.insert(doc.route->envelope);
  }
  bj::array tag_list;
  for (const auto& [tag, used] : tags)
    tag_list.push_back(bj::object{{"name", tag}, {"description", "Everything about " + std::string(tag)}});

  bj::object info{{"title", "Lathe"},
                  {"version", LATHE_VERSION},
                  {"description", "A self-hosted platform to tune, evaluate and serve models."},
                  {"license", bj::object{{"name", "Apache-2.0"}, {"identifier", "Apache-2.0"}}},
                  {"contact", bj::object{{"name", "The Lathe authors"}}}};
  bj::object out;
  out["openapi"] = "3.1.0";
  out["info"] = std::move(info);
  out["servers"] = bj::array({Json(bj::object{{"url", "/"}, {"description", "This server"}})});
  out["security"] = bj::array({Json(bj::object{{"bearer", bj::array()}})});
  out["tags"] = std::move(tag_list);
  out["paths"] = std::move(paths);
  out["components"] = components(envelopes);
  return out;
}

}  // namespace lathe::http
