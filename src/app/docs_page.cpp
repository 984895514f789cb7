#include "app/docs_page.h"

namespace lathe::app {

std::string_view docs_page() {
  return R"html(<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Lathe: HTTP API</title>
<style>
:root { --ink: #1d2430; --dim: #647084; --line: #dfe4ec; --back: #fff; --side: #f6f8fb; --code: #f1f4f8; --mark: #2563c9; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #dde3ec; --dim: #93a0b5; --line: #2c3646; --back: #141a23; --side: #10151d; --code: #1c2430; --mark: #78a9ff; }
}
* { box-sizing: border-box; }
body { margin: 0; font: 15px/1.5 system-ui, "Noto Sans CJK SC", sans-serif; color: var(--ink); background: var(--back); }
a { color: inherit; text-decoration: none; }
code, pre { font: 13px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; }
nav { position: fixed; inset: 0 auto 0 0; width: 320px; overflow-y: auto; padding: 16px; background: var(--side); border-right: 1px solid var(--line); }
nav h1 { font-size: 18px; margin: 0 0 12px; }
nav input { width: 100%; padding: 7px 10px; font: inherit; color: inherit; background: var(--back); border: 1px solid var(--line); border-radius: 6px; }
nav h2 { margin: 18px 0 4px; font-size: 12px; text-transform: uppercase; letter-spacing: .06em; color: var(--dim); }
nav a { display: block; padding: 2px 6px; border-radius: 4px; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; font-size: 13px; }
nav a:hover { background: var(--code); }
main { margin-left: 320px; padding: 24px 40px 80px; max-width: 1100px; }
section { border-top: 1px solid var(--line); padding: 22px 0; scroll-margin-top: 8px; }
section h3 { margin: 0 0 6px; font-size: 17px; }
.call { padding: 8px 12px; background: var(--code); border-radius: 6px; overflow-x: auto; white-space: nowrap; }
.get { color: #1a7f4b; } .post { color: #2563c9; } .put, .patch { color: #a35b00; } .delete { color: #c0362c; }
.method { font: 700 12px ui-monospace, monospace; display: inline-block; min-width: 52px; }
.tag { margin-left: 8px; padding: 1px 7px; border: 1px solid var(--line); border-radius: 10px; font-size: 12px; color: var(--dim); }
h4 { margin: 16px 0 6px; font-size: 13px; color: var(--dim); }
table { width: 100%; border-collapse: collapse; font-size: 13.5px; }
td, th { text-align: left; vertical-align: top; padding: 4px 10px 4px 0; border-bottom: 1px solid var(--line); }
td:first-child { white-space: nowrap; }
.need { color: #c0362c; }
.dim { color: var(--dim); }
@media (max-width: 800px) { nav { position: static; width: auto; max-height: 40vh; } main { margin: 0; padding: 16px; } table { table-layout: fixed; } td { overflow-wrap: anywhere; } td:first-child { white-space: normal; } }
</style>
</head>
<body>
<nav aria-label="Operations"><h1>Lathe: HTTP API</h1><input id="filter" type="search" placeholder="Filter" aria-label="Filter"><div id="index"></div></nav>
<main><h1 id="title">Loading …</h1><div id="intro"></div><div id="calls"></div></main>
<script>
"use strict";
const METHODS = ["get", "post", "put", "patch", "delete"];
let spec;

// Everything is put in as text, never as markup.
function el(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
  for (const child of children.flat()) if (child !== null && child !== undefined) made.append(child);
  return made;
}
function resolve(schema) {
  for (let hops = 0; schema && schema.$ref && hops < 20; ++hops)
    schema = schema.$ref.slice(2).split("/").reduce((at, key) => at && at[key.replace(/~1/g, "/").replace(/~0/g, "~")], spec);
  return schema || {};
}
function typeOf(schema) {
  schema = resolve(schema);
  const type = [].concat(schema.type || (schema.properties ? "object" : "any"));
  const words = type.map(t => t === "array" ? typeOf(schema.items) + "[]" : t);
  return words.join(" | ");
}
function limitsOf(schema) {
  schema = resolve(schema);
  const out = [];
  if (schema.enum) out.push("one of " + schema.enum.filter(v => v !== null).join(", "));
  if (schema.minimum !== undefined) out.push("≥ " + schema.minimum);
  if (schema.maximum !== undefined) out.push("≤ " + schema.maximum);
  if (schema.maxLength !== undefined && schema.maxLength !== 255) out.push("at most " + schema.maxLength + " characters");
  if (schema.contentMediaType) out.push(schema.contentMediaType + " in a string");
  return out.join("; ");
}
function rowsOf(schema, prefix, depth) {
  schema = resolve(schema);
  if (depth > 6) return [];
  const rows = [], needed = new Set(schema.required || []);
  for (const [name, raw] of Object.entries(schema.properties || {})) {
    const field = resolve(raw);
    rows.push(el("tr", {},
      el("td", {}, el("code", {}, el("span", { class: "dim" }, prefix), name), needed.has(name) ? el("span", { class: "need", title: "required" }, " *") : null),
      el("td", {}, el("code", {}, typeOf(field))),
      el("td", {}, field.description || "", limitsOf(field) ? el("div", { class: "dim" }, limitsOf(field)) : null)));
    const inner = [field, resolve(field.items), resolve(field.contentSchema), resolve(resolve(field.contentSchema).items)].find(s => s && s.properties);
    if (inner) rows.push(...rowsOf(inner, prefix + name + (typeOf(field).includes("[]") ? "[]." : "."), depth + 1));
  }
  return rows;
}
function table(title, rows) {
  if (!rows.length) return null;
  return el("div", {}, el("h4", {}, title), el("table", {}, el("tbody", {}, rows)));
}
function bodyOf(content) {
  return Object.entries(content || {}).map(([media, value]) => {
    const schema = resolve(value.schema), list = resolve(schema.items);
    const rows = rowsOf(list.properties ? list : schema, "", 0);
    return { media, rows };
  });
}
function section(path, method, operation) {
  const parts = [];
  const parameters = (operation.parameters || []).map(p => p.$ref ? resolve(p) : p);
  parts.push(table("Parameters", parameters.map(p => el("tr", {},
    el("td", {}, el("code", {}, p.name), p.required ? el("span", { class: "need" }, " *") : null, el("span", { class: "dim" }, " in " + p.in)),
    el("td", {}, el("code", {}, typeOf(p.schema))),
    el("td", {}, p.description || resolve(p.schema).description || "", limitsOf(p.schema) ? el("div", { class: "dim" }, limitsOf(p.schema)) : null)))));
  for (const { media, rows } of bodyOf(operation.requestBody && resolve(operation.requestBody).content))
    parts.push(rows.length ? table("Request body (" + media + ")", rows) : el("h4", {}, "Request body: " + media));
  for (const [status, raw] of Object.entries(operation.responses || {})) {
    const response = resolve(raw), bodies = bodyOf(response.content);
    if (!/^2/.test(status)) continue;
    if (!bodies.length) parts.push(el("h4", {}, "Answer " + status + ": " + (response.description || "no body")));
    for (const { media, rows } of bodies)
      parts.push(rows.length ? table("Answer " + status + " (" + media + ")", rows) : el("h4", {}, "Answer " + status + ": " + media));
  }
  const failures = Object.keys(operation.responses || {}).filter(s => !/^2/.test(s));
  if (failures.length) parts.push(el("p", { class: "dim" }, "Failures: " + failures.join(", ")));
  return el("section", { id: operation.operationId },
    el("h3", {}, operation.summary || operation.operationId),
    el("div", { class: "call" }, el("span", { class: "method " + method }, method.toUpperCase()), el("code", {}, path)),
    operation.description && operation.description !== operation.summary ? el("p", {}, operation.description) : null, parts);
}
function show() {
  document.getElementById("title").textContent = spec.info.title + " " + spec.info.version;
  if (spec.info.description) document.getElementById("intro").append(el("p", {}, spec.info.description));
  const groups = new Map();
  for (const [path, item] of Object.entries(spec.paths))
    for (const method of METHODS) if (item[method]) {
      const tag = (item[method].tags || ["other"])[0];
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push([path, method, item[method]]);
    }
  const index = document.getElementById("index"), calls = document.getElementById("calls");
  for (const [tag, list] of [...groups].sort()) {
    const block = el("div", {}, el("h2", {}, tag));
    for (const [path, method, operation] of list) {
      block.append(el("a", { href: "#" + operation.operationId, title: operation.summary || "", "data-text": (path + " " + (operation.summary || "") + " " + operation.operationId).toLowerCase() },
        el("span", { class: "method " + method }, method.toUpperCase()), path));
      calls.append(section(path, method, operation));
    }
    index.append(block);
  }
  document.getElementById("filter").addEventListener("input", event => {
    const wanted = event.target.value.trim().toLowerCase();
    for (const block of index.children) {
      let any = false;
      for (const link of block.querySelectorAll("a")) {
        const fits = link.dataset.text.includes(wanted);
        link.hidden = !fits;
        link.style.display = fits ? "" : "none";
        any = any || fits;
      }
      block.style.display = any ? "" : "none";
    }
  });
  if (location.hash) { const target = document.getElementById(location.hash.slice(1)); if (target) target.scrollIntoView(); }
}
fetch("/api/v1/openapi.json")
  .then(answer => { if (!answer.ok) throw new Error("HTTP " + answer.status); return answer.json(); })
  .then(document => { spec = document; show(); })
  .catch(error => { document.getElementById("title").textContent = "The OpenAPI document could not be loaded: " + error.message; });
</script>
</body>
</html>
)html";
}

}  // namespace lathe::app
