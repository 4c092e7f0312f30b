// llama.cpp behind a small server in the dialect of llama-server, with the arguments of its preset: `node-llama-cpp` has the library built.
import http from "node:http";
import { createRequire } from "node:module";
import { parseArgs } from "node:util";
import { pathToFileURL } from "node:url";

const { values } = parseArgs({
  options: {
    model: { type: "string" },
    alias: { type: "string" },
    host: { type: "string" },
    port: { type: "string" },
    metrics: { type: "boolean" },
    jinja: { type: "boolean" },
  },
});
const require = createRequire(process.env.LLAMA_PACKAGES + "/package.json");
const { getLlama, LlamaCompletion } = await import(pathToFileURL(require.resolve("node-llama-cpp")).href);

let model, completion, busy = Promise.resolve();

const json = (response, status, value) => {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(value));
};

async function body(request) {
  let text = "";
  for await (const chunk of request) text += chunk;
  return JSON.parse(text);
}

async function complete(prompt, asked, onTextChunk) {
  // One sequence: one request at a time.
  const turn = busy.then(() =>
    completion.generateCompletion(prompt, { maxTokens: asked.max_tokens ?? 16, temperature: 0, onTextChunk }),
  );
  busy = turn.catch(() => {});
  return turn;
}

async function answer(request, response) {
  if (!completion) return json(response, 503, { error: { message: "Loading model", type: "unavailable_error" } });
  if (request.url === "/health") return json(response, 200, { status: "ok" });
  if (request.url === "/v1/models") return json(response, 200, { object: "list", data: [{ id: values.alias, object: "model" }] });
  const isChat = request.url === "/v1/chat/completions";
  if (request.method !== "POST" || !(isChat || request.url === "/v1/completions")) return json(response, 404, { error: { message: "not found" } });
  const asked = await body(request);
  const prompt = isChat ? asked.messages.map((message) => message.content).join("\n") : asked.prompt;
  const base = { id: "1", created: 0, model: values.alias };
  if (!asked.stream) {
    const text = await complete(prompt, asked);
    const choice = { index: 0, finish_reason: "length", ...(isChat ? { message: { role: "assistant", content: text } } : { text }) };
    return json(response, 200, { ...base, object: isChat ? "chat.completion" : "text_completion", choices: [choice] });
  }
  response.writeHead(200, { "content-type": "text/event-stream" });
  const send = (content, finish) => {
    const choice = { index: 0, finish_reason: finish, delta: content === null ? {} : { content } };
    response.write(`data: ${JSON.stringify({ ...base, object: "chat.completion.chunk", choices: [choice] })}\n\n`);
  };
  await complete(prompt, asked, (text) => send(text, null));
  send(null, "length");
  response.end("data: [DONE]\n\n");
}

const server = http.createServer((request, response) => {
  answer(request, response).catch((error) => {
    console.error(error);
    response.headersSent ? response.destroy() : json(response, 500, { error: { message: String(error) } });
  });
});
server.listen(Number(values.port), values.host);
process.on("SIGTERM", () => process.exit(0));

const llama = await getLlama({ gpu: false, build: "never", skipDownload: true, progressLogs: false, logLevel: "error" });
model = await llama.loadModel({ modelPath: values.model });
const context = await model.createContext({ contextSize: 256 });
completion = new LlamaCompletion({ contextSequence: context.getSequence() });
console.log(`llama.cpp has loaded ${values.model}`);
