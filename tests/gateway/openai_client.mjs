// What the official client gets from the server in OPENAI_BASE_URL, as JSON.
import OpenAI from "openai";

const client = new OpenAI({ maxRetries: 0 });
const model = process.argv[2];
const out = {};

out.models = [];
for await (const one of client.models.list()) out.models.push(one.id);

const ask = (content, more) => client.chat.completions.create({ model, messages: [{ role: "user", content }], ...more });
out.chat = (await ask("hi")).choices[0].message.content;

let text = "", usage = null, pauses = 0, last = null;
for await (const chunk of await ask("stream", { stream: true, stream_options: { include_usage: true } })) {
  text += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
  if (last !== null && performance.now() - last > 5) pauses += 1;
  last = performance.now();
}
out.stream = { text, usage, pauses };

out.completion = (await client.completions.create({ model, prompt: "p" })).choices[0].text;
out.embedding = (await client.embeddings.create({ model, input: "x", encoding_format: "float" })).data[0].embedding;

const failure = async (promise) => {
  try {
    await promise;
    return null;
  } catch (error) {
    return { kind: error.constructor.name, status: error.status, code: error.code, type: error.type, param: error.param };
  }
};
out.unknown = await failure(client.chat.completions.create({ model: "nobody", messages: [] }));
out.unauthorized = await failure(new OpenAI({ apiKey: "wrong", maxRetries: 0 }).models.list());
out.failed = await failure(ask("fail"));

// Leaving in the middle of a stream.
const stream = await ask("leave", { stream: true });
for await (const chunk of stream) break;
out.left = stream.controller.signal.aborted;

console.log(JSON.stringify(out));
