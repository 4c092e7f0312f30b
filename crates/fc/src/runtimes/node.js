// Runs handlers of Function Compute's Node.js runtimes behind a web server, one for each instance of a Kipwake function.
// Event handlers take (event, context, callback) or return a promise; HTTP handlers of before take (request, response, context).
// Arguments: the handler, and the initializer if there is one.
"use strict";

const http = require("http");
const path = require("path");
const { pathToFileURL } = require("url");
const fs = require("fs");

const code = process.cwd();
const names = process.argv.slice(2);

// The function that `folder/module.function` names.
async function load(name) {
  const at = name.lastIndexOf(".");
  if (at < 1) throw new Error("the handler '" + name + "' is not MODULE.FUNCTION");
  const file = path.join(code, name.slice(0, at));
  const esm = file + ".mjs";
  let loaded;
  try {
    loaded = fs.existsSync(esm) ? await import(pathToFileURL(esm)) : require(file);
  } catch (error) {
    if (error.code !== "ERR_REQUIRE_ESM") throw error;
    loaded = await import(pathToFileURL(file + ".js"));
  }
  const found = loaded[name.slice(at + 1)] || (loaded.default && loaded.default[name.slice(at + 1)]);
  if (typeof found !== "function") throw new Error("'" + name + "' is no function");
  return found;
}

const cache = {};
function handlerOf(name) {
  if (!cache[name]) cache[name] = load(name);
  return cache[name];
}

function contextOf(headers) {
  const get = (name) => headers[name] || "";
  const line = (level) => (...words) => console.log(get("x-fc-request-id"), "[" + level + "]", ...words);
  return {
    requestId: get("x-fc-request-id"),
    credentials: {
      accessKeyId: process.env.ALIBABA_CLOUD_ACCESS_KEY_ID || "",
      accessKeySecret: process.env.ALIBABA_CLOUD_ACCESS_KEY_SECRET || "",
      securityToken: process.env.ALIBABA_CLOUD_SECURITY_TOKEN || "",
    },
    function: {
      name: get("x-fc-function-name"),
      handler: names[0],
      memory: Number(get("x-fc-function-memory")) || 0,
      timeout: Number(get("x-fc-function-timeout")) || 0,
    },
    service: { name: "", logProject: "", logStore: "", qualifier: get("x-fc-qualifier"), versionId: get("x-fc-version-id") },
    region: get("x-fc-region"),
    accountId: get("x-fc-account-id"),
    logger: { debug: line("debug"), info: line("info"), warn: line("warn"), error: line("error"), log: line("info") },
  };
}

class HandledError extends Error {}

// Calls a function that answers by its callback or by a promise.
function called(work, args) {
  return new Promise((resolve, reject) => {
    const callback = (error, result) => {
      if (!error) return resolve(result);
      const handled = new HandledError(error.message || String(error));
      handled.name = error.name || "Error";
      handled.stack = error.stack;
      reject(handled);
    };
    const result = work(...args, callback);
    const answersLater = result && typeof result.then === "function";
    if (answersLater) result.then(resolve, reject);
    else if (work.length <= args.length) resolve(result);
  });
}

function asBuffer(value) {
  if (value === undefined || value === null) return Buffer.alloc(0);
  if (Buffer.isBuffer(value)) return value;
  if (value instanceof Uint8Array) return Buffer.from(value);
  return Buffer.from(typeof value === "string" ? value : JSON.stringify(value));
}

async function event(headers, body) {
  const handler = await handlerOf(names[0]);
  const result = await called(handler, [body, contextOf(headers)]);
  return { status: 200, headers: { "content-type": "application/octet-stream", "x-fc-status": "200" }, body: asBuffer(result) };
}

// An event handler gets a request as an event, and says what to answer.
async function wrapped(request, target, body) {
  const handler = await handlerOf(names[0]);
  const wrap = {
    version: "v1",
    rawPath: target.pathname,
    headers: request.headers,
    queryParameters: Object.fromEntries(target.searchParams),
    body: body.toString("base64"),
    isBase64Encoded: true,
    requestContext: {
      requestId: request.headers["x-fc-request-id"] || "",
      domainName: request.headers.host || "",
      http: { method: request.method, path: target.pathname, protocol: "HTTP/1.1" },
    },
  };
  const result = await called(handler, [Buffer.from(JSON.stringify(wrap)), contextOf(request.headers)]);
  let said = null;
  try {
    said = Buffer.isBuffer(result) || typeof result === "string" ? JSON.parse(result) : result;
  } catch (_) {}
  if (!said || typeof said !== "object" || said.statusCode === undefined) {
    return { status: 200, headers: { "content-type": "application/octet-stream" }, body: asBuffer(result) };
  }
  const content = said.isBase64Encoded ? Buffer.from(String(said.body || ""), "base64") : asBuffer(said.body);
  return { status: Number(said.statusCode), headers: said.headers || {}, body: content };
}

async function initialize(headers) {
  if (names[1]) await called(await handlerOf(names[1]), [contextOf(headers)]);
  await handlerOf(names[0]);
  return { status: 200, headers: {}, body: Buffer.alloc(0) };
}

async function framed(what, request, work) {
  const id = request.headers["x-fc-request-id"] || "";
  console.log("FC " + what + " Start RequestId: " + id);
  try {
    return await work();
  } catch (error) {
    console.error(error && error.stack ? error.stack : error);
    const kind = error instanceof HandledError ? "HandledInvocationError" : "UnhandledInvocationError";
    const said = {
      errorMessage: error && error.message ? error.message : String(error),
      errorType: error && error.name ? error.name : "Error",
      stackTrace: error && error.stack ? error.stack.split("\n") : [],
    };
    const headers = { "content-type": "application/json", "x-fc-status": "500", "x-fc-error-type": kind };
    return { status: 502, headers, body: Buffer.from(JSON.stringify(said)) };
  } finally {
    console.log("FC " + what + " End RequestId: " + id);
  }
}

const server = http.createServer((request, response) => {
  const pieces = [];
  request.on("data", (piece) => pieces.push(piece));
  request.on("end", async () => {
    const body = Buffer.concat(pieces);
    const target = new URL(request.url, "http://localhost");
    const control = request.headers["x-fc-control-path"];
    let answer;
    if (target.pathname === "/initialize" && request.method === "POST") {
      answer = await framed("Initialize", request, () => initialize(request.headers));
    } else if (target.pathname === "/pre-stop" && request.method === "GET") {
      answer = { status: 200, headers: {}, body: Buffer.alloc(0) };
    } else if (control === "/invoke" || (target.pathname === "/invoke" && request.method === "POST")) {
      answer = await framed("Invoke", request, () => event(request.headers, body));
    } else {
      answer = await framed("Invoke", request, () => wrapped(request, target, body));
    }
    response.writeHead(answer.status, { ...answer.headers, "content-length": answer.body.length });
    response.end(request.method === "HEAD" ? undefined : answer.body);
  });
});
server.keepAliveTimeout = 0;
server.listen(Number(process.env.PORT), "127.0.0.1");
