// The official Node SDK of Function Compute against a Kipwake server. Arguments: the API's address, access-key id, secret, a Python.
'use strict';

const assert = require('node:assert');
const http = require('node:http');
const zlib = require('node:zlib');
const { Readable } = require('node:stream');
const sdk = require('@alicloud/fc20230330');
const { $OpenApiUtil } = require('@alicloud/openapi-core');
const dara = require('@darabonba/typescript');

const [address, accessId, secret, python] = process.argv.slice(2);

function clientOf(accessKeyId, accessKeySecret) {
  const config = new $OpenApiUtil.Config({ accessKeyId, accessKeySecret, endpoint: address, protocol: 'http' });
  return new sdk.default(config);
}

const client = clientOf(accessId, secret);

const PROGRAM = `
import json, os
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        answer = json.dumps({"release": RELEASE, "A": os.environ.get("A"), "body": body.decode()}).encode()
        print("handled", body.decode(), flush=True)
        self.send_response(500 if body == b"fail" else 200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    do_GET = do_POST
    def log_message(self, *_): pass

HTTPServer(("127.0.0.1", int(os.environ["FC_SERVER_PORT"])), Handler).serve_forever()
`;

// A ZIP archive of one stored file.
function archive(name, text) {
  const data = Buffer.from(text);
  const file = Buffer.from(name);
  const common = Buffer.alloc(26);
  common.writeUInt16LE(20, 0);
  common.writeUInt16LE(0x21, 8);
  common.writeUInt32LE(zlib.crc32 ? zlib.crc32(data) : crc32(data), 10);
  common.writeUInt32LE(data.length, 14);
  common.writeUInt32LE(data.length, 18);
  common.writeUInt16LE(file.length, 22);
  const local = Buffer.concat([Buffer.from('PK\x03\x04', 'latin1'), common, file, data]);
  const tail = Buffer.alloc(14);
  const central = Buffer.concat([Buffer.from('PK\x01\x02\x14\x00', 'latin1'), common, tail, file]);
  const end = Buffer.alloc(22);
  end.write('PK\x05\x06', 0, 'latin1');
  end.writeUInt16LE(1, 8);
  end.writeUInt16LE(1, 10);
  end.writeUInt32LE(central.length, 12);
  end.writeUInt32LE(local.length, 16);
  return Buffer.concat([local, central, end]);
}

function crc32(data) {
  let crc = ~0;
  for (const byte of data) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

function code(release) {
  const bytes = archive('app.py', `RELEASE = "${release}"\n${PROGRAM}`);
  return new sdk.InputCodeLocation({ zipFile: bytes.toString('base64') });
}

async function refused(expected, status, work) {
  try {
    await work();
  } catch (error) {
    assert.deepStrictEqual([error.code, error.statusCode], [expected, status], String(error));
    return error;
  }
  throw new Error(`not refused: ${expected}`);
}

async function until(what, look) {
  for (let turn = 0; turn < 600; turn += 1) {
    const found = await look();
    if (found) return found;
    await new Promise((done) => setTimeout(done, 50));
  }
  throw new Error(`never: ${what}`);
}

async function invoke(body, { name = 'node-sdk', qualifier, ...headers } = {}) {
  const request = new sdk.InvokeFunctionRequest({ qualifier, body: Readable.from([Buffer.from(body)]) });
  const options = new dara.RuntimeOptions({ readTimeout: 60000 });
  const answer = await client.invokeFunctionWithOptions(name, request, new sdk.InvokeFunctionHeaders(headers), options);
  const pieces = [];
  for await (const piece of answer.body) pieces.push(piece);
  return { status: answer.statusCode, headers: answer.headers, text: Buffer.concat(pieces).toString() };
}

function fetchStatus(url) {
  return new Promise((done, failed) => {
    http.get(url, (answer) => { answer.resume(); done(answer.statusCode); }).on('error', failed);
  });
}

async function main() {
  // Make, show, invoke.
  const created = (await client.createFunction(new sdk.CreateFunctionRequest({
    body: new sdk.CreateFunctionInput({
      functionName: 'node-sdk', runtime: 'custom.debian12', handler: 'index.handler', code: code('one'), timeout: 60,
      memorySize: 512, cpu: 0.35, diskSize: 512, environmentVariables: { A: 'b' },
      customRuntimeConfig: new sdk.CustomRuntimeConfig({ command: [python, 'app.py'], port: 9000 }),
      tags: [new sdk.Tag({ key: 'team', value: 'a' })],
    }),
  }))).body;
  assert.strictEqual(created.functionName, 'node-sdk');
  assert.strictEqual(created.state, 'Active');
  let answer = await invoke('hello');
  assert.deepStrictEqual(JSON.parse(answer.text), { release: 'one', A: 'b', body: 'hello' });
  assert.ok(answer.headers['x-fc-request-id'] && answer.headers['x-fc-instance-id'], JSON.stringify(answer.headers));
  answer = await invoke('fail', { xFcLogType: 'Tail' });
  assert.strictEqual(answer.headers['x-fc-error-type'], 'UnhandledInvocationError');
  assert.match(Buffer.from(answer.headers['x-fc-log-result'], 'base64').toString(), /handled fail/);
  answer = await invoke('later', { xFcInvocationType: 'Async', xFcAsyncTaskId: 'task-1' });
  assert.strictEqual(answer.status, 202);
  await until('the task succeeded', async () => {
    const task = (await client.getAsyncTask('node-sdk', 'task-1', new sdk.GetAsyncTaskRequest({}))).body;
    return task.status === 'Succeeded';
  });

  // Update, publish, an alias with weights.
  const release = async (options) => JSON.parse((await invoke('x', options)).text).release;
  await client.publishFunctionVersion('node-sdk', new sdk.PublishFunctionVersionRequest({
    body: new sdk.PublishVersionInput({ description: 'first' }),
  }));
  await client.updateFunction('node-sdk', new sdk.UpdateFunctionRequest({
    body: new sdk.UpdateFunctionInput({ code: code('two'), timeout: 30 }),
  }));
  await until('the second release serves', async () => (await release()) === 'two');
  const second = (await client.publishFunctionVersion('node-sdk', new sdk.PublishFunctionVersionRequest({
    body: new sdk.PublishVersionInput({}),
  }))).body;
  assert.strictEqual(second.versionId, '2');
  assert.strictEqual(await release({ qualifier: '1' }), 'one');
  const alias = (await client.createAlias('node-sdk', new sdk.CreateAliasRequest({
    body: new sdk.CreateAliasInput({ aliasName: 'prod', versionId: '1', additionalVersionWeight: { 2: 0.5 } }),
  }))).body;
  assert.deepStrictEqual(alias.additionalVersionWeight, { 2: 0.5 });
  const seen = new Set();
  await until('both versions answer', async () => seen.add(await release({ qualifier: 'prod' })).size === 2);
  await client.updateAlias('node-sdk', 'prod', new sdk.UpdateAliasRequest({
    body: new sdk.UpdateAliasInput({ versionId: '2', additionalVersionWeight: {} }),
  }));
  assert.strictEqual(await release({ qualifier: 'prod' }), 'two');

  // A trigger on the alias.
  const trigger = (await client.createTrigger('node-sdk', new sdk.CreateTriggerRequest({
    body: new sdk.CreateTriggerInput({
      triggerName: 'web', triggerType: 'http', qualifier: 'prod',
      triggerConfig: JSON.stringify({ authType: 'anonymous', methods: ['GET'] }),
    }),
  }))).body;
  assert.strictEqual(await fetchStatus(trigger.httpTrigger.urlInternet), 200);
  await client.updateTrigger('node-sdk', 'web', new sdk.UpdateTriggerRequest({
    body: new sdk.UpdateTriggerInput({ triggerConfig: JSON.stringify({ authType: 'function', methods: ['GET'] }) }),
  }));
  assert.strictEqual(await fetchStatus(trigger.httpTrigger.urlInternet), 401);

  // Provisioned instances, scaling, concurrency, the asynchronous configuration.
  await client.putProvisionConfig('node-sdk', new sdk.PutProvisionConfigRequest({
    qualifier: 'prod', body: new sdk.PutProvisionConfigInput({ defaultTarget: 1 }),
  }));
  const provision = await until('an instance is provisioned', async () => {
    const now = (await client.getProvisionConfig('node-sdk', new sdk.GetProvisionConfigRequest({ qualifier: 'prod' }))).body;
    return now.current === 1 && now;
  });
  assert.ok(provision.functionArn.endsWith('functions/node-sdk/prod'));
  await client.deleteProvisionConfig('node-sdk', new sdk.DeleteProvisionConfigRequest({ qualifier: 'prod' }));
  await client.putConcurrencyConfig('node-sdk', new sdk.PutConcurrencyConfigRequest({
    body: new sdk.PutConcurrencyInput({ reservedConcurrency: 3 }),
  }));
  assert.strictEqual((await client.getConcurrencyConfig('node-sdk')).body.reservedConcurrency, 3);
  await client.putAsyncInvokeConfig('node-sdk', new sdk.PutAsyncInvokeConfigRequest({
    body: new sdk.PutAsyncInvokeConfigInput({ maxAsyncRetryAttempts: 2 }),
  }));
  await refused('InvalidArgument', 400, () => client.putAsyncInvokeConfig('node-sdk', new sdk.PutAsyncInvokeConfigRequest({
    body: new sdk.PutAsyncInvokeConfigInput({ maxAsyncRetryAttempts: 9 }),
  })));

  // Lists with pages.
  for (const number of [0, 1, 2]) {
    await client.createFunction(new sdk.CreateFunctionRequest({
      body: new sdk.CreateFunctionInput({
        functionName: `page-${number}`, runtime: 'custom', handler: 'h', code: code('x'),
        customRuntimeConfig: new sdk.CustomRuntimeConfig({ command: [python, 'app.py'] }),
      }),
    }));
  }
  const names = [];
  let nextToken;
  do {
    const page = (await client.listFunctions(new sdk.ListFunctionsRequest({ limit: 2, nextToken }))).body;
    assert.ok(page.functions.length <= 2);
    names.push(...page.functions.map((one) => one.functionName));
    nextToken = page.nextToken;
  } while (nextToken);
  assert.deepStrictEqual(names, ['node-sdk', 'page-0', 'page-1', 'page-2']);
  const tagged = (await client.listFunctions(new sdk.ListFunctionsRequest({ tags: [new sdk.Tag({ key: 'team', value: 'a' })] }))).body;
  assert.deepStrictEqual(tagged.functions.map((one) => one.functionName), ['node-sdk']);
  const running = (await client.listInstances('node-sdk', new sdk.ListInstancesRequest({ instanceStatus: ['Running'] }))).body;
  assert.ok(Array.isArray(running.instances));

  // What does not fit is refused with the vendor's codes.
  const again = () => client.createFunction(new sdk.CreateFunctionRequest({
    body: new sdk.CreateFunctionInput({ functionName: 'node-sdk', runtime: 'custom', handler: 'h', code: code('x') }),
  }));
  await refused('FunctionAlreadyExists', 409, again);
  await refused('FunctionNotFound', 404, () => client.getFunction('none', new sdk.GetFunctionRequest({})));
  await refused('FunctionNotFound', 404, () => client.getFunction('a/b c', new sdk.GetFunctionRequest({})));
  await refused('VersionNotFound', 404, () => invoke('x', { qualifier: '9' }));
  await refused('AliasAlreadyExists', 409, () => client.createAlias('node-sdk', new sdk.CreateAliasRequest({
    body: new sdk.CreateAliasInput({ aliasName: 'prod', versionId: '1' }),
  })));
  await refused('TriggerNotFound', 404, () => client.getTrigger('node-sdk', 'none'));
  await refused('InvalidArgument', 400, () => client.createFunction(new sdk.CreateFunctionRequest({
    body: new sdk.CreateFunctionInput({ functionName: 'a b', runtime: 'custom', handler: 'h', code: code('x') }),
  })));
  await refused('InvalidArgument', 400, () => client.listFunctions(new sdk.ListFunctionsRequest({ limit: 101 })));
  await refused('SignatureNotMatch', 403, () => clientOf(accessId, 'wrong').getFunction('node-sdk', new sdk.GetFunctionRequest({})));
  await refused('InvalidAccessKeyID', 403, () => clientOf('nobody', secret).getFunction('node-sdk', new sdk.GetFunctionRequest({})));

  // Away.
  await client.deleteTrigger('node-sdk', 'web');
  await client.deleteAlias('node-sdk', 'prod');
  for (const number of [0, 1, 2]) await client.deleteFunction(`page-${number}`);
  await client.deleteFunction('node-sdk');
  await refused('FunctionNotFound', 404, () => client.getFunction('node-sdk', new sdk.GetFunctionRequest({})));
  console.log('ok');
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
