// Starts a private atproto network on 127.0.0.1: one PLC directory + N PDSes,
// fills it with accounts and records over XRPC, prints ONE JSON line on stdout,
// then serves until SIGTERM / SIGINT.
//
//   node network.mjs [--pds 2] [--accounts 3] [--records 5] [--port 0] [--plc-port 0]
//                    [--control-port 0] [--data DIR] [--crawler URL,URL]
//                    [--backfill-ms N] [--plc-db postgres://...] [--did-doc raw|multikey]
//                    [--fronted] [--max-buffer N] [--until-stdin-closes] [--log]
//
// --did-doc: raw = what @did-plc/server 0.0.1 itself answers (legacy key form, relative ids);
// multikey = the same document rewritten to the form plc.directory serves today.
// --accounts and --records are per PDS and per account. Port 0 = pick a free one;
// --port P gives PDS i the port P+i. --data keeps state (keys, sqlite files) across
// runs; without it a temp folder is used and removed on exit. The in-memory PLC
// forgets everything on exit, so a kept --data is only useful with --plc-db.
// --fronted: every PDS announces a port that it leaves free for somebody who stands in front of it, and listens at
// another one, `inner`. --max-buffer: how many events a PDS keeps for a slow subscriber before it gives him up.
// --until-stdin-closes: also stop when stdin ends, so that a harness that is killed leaves nothing behind.
import http from 'node:http'
import net from 'node:net'
import fs from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import crypto from 'node:crypto'
import { parseArgs } from 'node:util'

const t0 = performance.now()
const { values: opt } = parseArgs({
  options: {
    pds: { type: 'string', default: '2' },
    accounts: { type: 'string', default: '3' },
    records: { type: 'string', default: '5' },
    port: { type: 'string', default: '0' },
    'plc-port': { type: 'string', default: '0' },
    'control-port': { type: 'string', default: '0' },
    data: { type: 'string' },
    crawler: { type: 'string' },
    'backfill-ms': { type: 'string' },
    'plc-db': { type: 'string' },
    'did-doc': { type: 'string', default: 'raw' },
    fronted: { type: 'boolean', default: false },
    'max-buffer': { type: 'string' },
    'until-stdin-closes': { type: 'boolean', default: false },
    log: { type: 'boolean', default: false },
  },
})
// must be set before the packages load; stdout carries only our JSON line
process.env.LOG_ENABLED = opt.log ? 'true' : 'false'
if (opt.log && !process.env.LOG_DESTINATION) process.env.LOG_DESTINATION = '/dev/stderr'

const LOOP = '127.0.0.1'
const { PDS, envToCfg, envToSecrets, scripts } = await import('@atproto/pds')
const plcMod = (await import('@did-plc/server')).default ?? (await import('@did-plc/server'))
const { Secp256k1Keypair } = await import('@atproto/crypto')
const plcLib = await import('@did-plc/lib')
const tLoaded = performance.now()

// below the range the kernel hands to outgoing connections: a port must still be free when a stopped PDS comes back
const freePort = async () => {
  for (;;) {
    const port = crypto.randomInt(10240, 32000)
    const free = await new Promise((ok) => {
      const s = net.createServer().once('error', () => ok(false))
      s.listen(port, LOOP, () => s.close(() => ok(true)))
    })
    if (free) return port
  }
}
const hex = (n) => crypto.randomBytes(n).toString('hex')
// express's app.listen(port) binds every interface; pin it to loopback
const pinToLoopback = (app, port) => {
  const orig = app.listen.bind(app)
  app.listen = (announced) => orig(port ?? announced, LOOP)
}
const loadOrMake = async (file, make) => {
  try { return JSON.parse(await fs.readFile(file, 'utf8')) } catch { /* first run */ }
  const v = await make()
  await fs.writeFile(file, JSON.stringify(v))
  return v
}

const dataDir = opt.data ? path.resolve(opt.data) : await fs.mkdtemp(path.join(os.tmpdir(), 'atnet-'))
await fs.mkdir(dataDir, { recursive: true })

// ---- PLC -------------------------------------------------------------------
const plcPort = Number(opt['plc-port']) || (await freePort())
let plc = null
let plcDb = null
async function startPlc() {
  if (opt['plc-db']) {
    plcDb = plcMod.Database.postgres({ url: opt['plc-db'] })
    await plcDb.migrateToLatestOrThrow()
  } else {
    plcDb ??= plcMod.Database.mock() // kept across stop/start of the server
  }
  plc = plcMod.PlcServer.create({ db: plcDb, port: plcPort, version: 'loopback' })
  pinToLoopback(plc.app)
  if (opt['did-doc'] === 'multikey') rewriteDidDocs(plc)
  await plc.start()
}
// answer GET /did:plc:... ourselves, before the package's own route, from the package's own data
function rewriteDidDocs(server) {
  server.app.get(/^\/(did:plc:[a-z2-7]{24})$/, async (req, res, next) => {
    const did = req.params[0]
    try {
      const data = await plcLib.validateOperationLog(did, await server.ctx.db.opsForDid(did))
      if (!data) return next()
      res.type('application/did+ld+json').send(JSON.stringify({
        '@context': ['https://www.w3.org/ns/did/v1', 'https://w3id.org/security/multikey/v1', 'https://w3id.org/security/suites/secp256k1-2019/v1'],
        id: did,
        alsoKnownAs: data.alsoKnownAs,
        verificationMethod: Object.entries(data.verificationMethods).map(([k, v]) => ({
          id: `${did}#${k}`, type: 'Multikey', controller: did, publicKeyMultibase: v.slice('did:key:'.length),
        })),
        service: Object.entries(data.services).map(([k, v]) => ({ id: `#${k}`, type: v.type, serviceEndpoint: v.endpoint })),
      }))
    } catch { next() }
  })
  const { stack } = server.app._router // express 4: move our route ahead of the package's router
  stack.splice(stack.findIndex((l) => l.name === 'router'), 0, stack.pop())
}
async function stopPlc() { const p = plc; plc = null; await p?.destroy() }
const plcUrl = `http://localhost:${plcPort}` // a host NAME: the PDS fetcher refuses IP hosts

// ---- PDSes -----------------------------------------------------------------
const hosts = []
async function preparePds(i) {
  const dir = path.join(dataDir, `pds${i}`)
  await fs.mkdir(path.join(dir, 'blobs'), { recursive: true })
  const announced = opt.port !== '0' ? Number(opt.port) + i : await freePort()
  const secrets = await loadOrMake(path.join(dir, 'secrets.json'), () => ({
    jwtSecret: hex(32), dpopSecret: hex(32), adminPassword: hex(12), plcRotationKeyHex: hex(32), port: announced,
  }))
  const env = {
    port: opt.port !== '0' ? announced : (secrets.port ?? announced),
    hostname: 'localhost',
    devMode: true, // http did docs, no SSRF filter
    dataDirectory: dir,
    blobstoreDiskLocation: path.join(dir, 'blobs'),
    didPlcUrl: plcUrl,
    serviceHandleDomains: [`.pds${i}.test`],
    inviteRequired: false,
    rateLimitsEnabled: false,
    crawlers: opt.crawler ? opt.crawler.split(',') : [],
    maxSubscriptionBuffer: opt['max-buffer'] ? Number(opt['max-buffer']) : undefined,
    repoBackfillLimitMs: opt['backfill-ms'] ? Number(opt['backfill-ms']) : undefined,
    didCacheStaleTTL: 0,
    didCacheMaxTTL: 0,
    resolverTimeout: 3000,
    jwtSecret: secrets.jwtSecret,
    dpopSecret: secrets.dpopSecret,
    adminPassword: secrets.adminPassword,
    plcRotationKeyK256PrivateKeyHex: secrets.plcRotationKeyHex,
  }
  env.serviceDid = `did:web:localhost%3A${env.port}`
  const port = opt.fronted ? await freePort() : env.port
  hosts[i] = { env, dir, secrets, port, url: `http://localhost:${env.port}`, inner: `http://localhost:${port}`, server: null }
}
async function startPds(i) {
  const h = hosts[i]
  const cfg = envToCfg(h.env)
  if (h.backfillMs != null) cfg.subscription.repoBackfillLimitMs = h.backfillMs
  h.server = await PDS.create(cfg, envToSecrets(h.env))
  pinToLoopback(h.server.app, h.port)
  await h.server.start()
}
async function stopPds(i) { const s = hosts[i].server; hosts[i].server = null; await s?.destroy() }

// ---- XRPC ------------------------------------------------------------------
async function xrpc(base, nsid, body, token) {
  const res = await fetch(`${base}/xrpc/${nsid}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(token ? { authorization: `Bearer ${token}` } : {}) },
    body: JSON.stringify(body),
  })
  const text = await res.text()
  if (!res.ok) throw new Error(`${nsid} ${res.status} ${text}`)
  return text ? JSON.parse(text) : null
}
const bodyFor = (n) => {
  const createdAt = new Date().toISOString()
  return n % 3 === 2
    ? ['com.example.note', { $type: 'com.example.note', n, tags: ['a', 'b'], nested: { deep: [1, null, true] }, createdAt }]
    : ['app.bsky.feed.post', { $type: 'app.bsky.feed.post', text: `post ${n} — größe ✓`, createdAt }]
}
async function makeAccount(i, n) {
  const h = hosts[i]
  const handle = `user${n}.pds${i}.test`
  const password = hex(8)
  const a = await xrpc(h.inner, 'com.atproto.server.createAccount', { handle, email: `u${n}@pds${i}.example.com`, password })
  const records = []
  for (let r = 0; r < Number(opt.records); r++) {
    const [collection, record] = bodyFor(r)
    const w = await xrpc(h.inner, 'com.atproto.repo.createRecord', { repo: a.did, collection, record }, a.accessJwt)
    records.push({ uri: w.uri, cid: w.cid })
  }
  return { did: a.did, handle, pds: i, password, accessJwt: a.accessJwt, records }
}

// ---- control (things XRPC cannot do) ------------------------------------------
// POST {op, ...}: stop|start {pds} | stop-plc | start-plc | backfill {pds, ms}
//   told {pds}: wait until the PDS has told its subscribers of everything it wrote (it polls)
//   rotate-key {pds, did}: new signing key on disk -> PLC op -> new commit -> #identity + #sync
//   emit {pds, did, kind: sync|identity|account}: resequence the current state
//   set-key {pds, did, key?}: publish another signing key in the PLC only (none: a new one); tells the one before
//   tombstone {pds, did}: end a DID in the PLC
//   email-token {pds, did, purpose}: newest token the PDS "mailed" to that account
const control = {
  stop: ({ pds }) => stopPds(pds),
  start: ({ pds }) => startPds(pds),
  'stop-plc': stopPlc,
  'start-plc': startPlc,
  backfill: ({ pds, ms }) => { hosts[pds].backfillMs = ms; hosts[pds].server.ctx.cfg.subscription.repoBackfillLimitMs = ms },
  told: async ({ pds }) => {
    const { sequencer } = hosts[pds].server.ctx
    for (let i = 0; sequencer.lastSeen < ((await sequencer.curr()) ?? 0); i++) {
      if (i === 500) throw new Error('the sequencer does not catch up')
      await new Promise((ok) => setTimeout(ok, 20))
    }
    return sequencer.lastSeen
  },
  'rotate-key': async ({ pds, did }) => {
    const { ctx } = hosts[pds].server
    const { keyLocation } = await ctx.actorStore.getLocation(did)
    const before = (await ctx.actorStore.keypair(did)).did()
    const next = await Secp256k1Keypair.create({ exportable: true })
    await fs.writeFile(keyLocation, await next.export())
    const log = console.log
    console.log = (...a) => console.error(...a) // the script prints; keep our stdout clean
    try { await scripts['rotate-keys'](ctx, [did]) } finally { console.log = log }
    return { before, after: next.did() }
  },
  emit: async ({ pds, did, kind }) => {
    const { ctx } = hosts[pds].server
    if (kind === 'account') return ctx.accountManager.sequenceAccountStatus?.(did) ?? ctx.sequencer.sequenceAccountEvt(did, (await ctx.accountManager.getAccountStatus(did)))
    if (kind === 'identity') return (ctx.sequencer.sequenceIdentity ?? ctx.sequencer.sequenceIdentityEvt).call(ctx.sequencer, did)
    const data = await ctx.actorStore.read(did, (s) => s.repo.getSyncEventData())
    const { sequencer: q } = ctx // named sequenceSyncEvt / sequenceIdentityEvt in @atproto/pds 0.4
    return (q.sequenceSync ?? q.sequenceSyncEvt).call(q, did, data)
  },
  'set-key': async ({ pds, did, key }) => {
    const client = new plcLib.Client(plcUrl)
    const before = (await client.getDocumentData(did)).verificationMethods.atproto
    const after = key ?? (await Secp256k1Keypair.create()).did()
    await client.updateAtprotoKey(did, await rotationKey(pds), after)
    return { before, after }
  },
  tombstone: async ({ pds, did }) => new plcLib.Client(plcUrl).tombstone(did, await rotationKey(pds)),
  'email-token': async ({ pds, did, purpose }) => {
    const { db } = hosts[pds].server.ctx.accountManager.db
    return db.selectFrom('email_token').selectAll().where('did', '=', did).where('purpose', '=', purpose).executeTakeFirst()
  },
}
const rotationKey = (pds) => Secp256k1Keypair.import(hosts[pds].secrets.plcRotationKeyHex)
const ctl = http.createServer(async (req, res) => {
  let raw = ''
  for await (const c of req) raw += c
  const send = (code, v) => { res.writeHead(code, { 'content-type': 'application/json' }); res.end(JSON.stringify(v ?? null)) }
  try {
    const q = JSON.parse(raw || '{}')
    if (!control[q.op]) return send(404, { error: `no op ${q.op}` })
    send(200, await control[q.op](q))
  } catch (e) { send(500, { error: String(e?.stack ?? e) }) }
})

// ---- run -----------------------------------------------------------------------
let closing = null
const shutdown = () => (closing ??= (async () => {
  ctl.close(); ctl.closeAllConnections()
  for (let i = 0; i < hosts.length; i++) await stopPds(i).catch((e) => console.error(e))
  await stopPlc().catch((e) => console.error(e))
  if (!opt.data) await fs.rm(dataDir, { recursive: true, force: true })
})())
const stopAndExit = () => {
  setTimeout(() => process.exit(1), 10000).unref() // a server that will not close must not keep us
  shutdown().then(() => process.exit(0))
}
for (const sig of ['SIGTERM', 'SIGINT']) process.on(sig, stopAndExit)
if (opt['until-stdin-closes']) process.stdin.on('close', stopAndExit).resume()

await startPlc()
for (let i = 0; i < Number(opt.pds); i++) { await preparePds(i); await startPds(i) }
await new Promise((ok) => ctl.listen(Number(opt['control-port']), LOOP, ok))
const tServing = performance.now()
const accounts = (await Promise.all(hosts.map(async (_, i) => {
  const out = []
  for (let n = 0; n < Number(opt.accounts); n++) out.push(await makeAccount(i, n))
  return out
}))).flat()
const tDone = performance.now()

console.log(JSON.stringify({
  pid: process.pid,
  plc: { url: plcUrl, db: opt['plc-db'] ? 'postgres' : 'memory' },
  control: `http://${LOOP}:${ctl.address().port}`,
  dataDir,
  pds: hosts.map((h) => ({
    url: h.url, inner: h.inner, ws: h.url.replace('http', 'ws'), did: h.env.serviceDid, handleDomain: h.env.serviceHandleDomains[0],
    adminUser: 'admin', adminPassword: h.secrets.adminPassword, plcRotationKeyHex: h.secrets.plcRotationKeyHex, dir: h.dir,
  })),
  accounts,
  timings: { importMs: Math.round(tLoaded - t0), serveMs: Math.round(tServing - tLoaded), seedMs: Math.round(tDone - tServing) },
  rssMb: Math.round(process.memoryUsage().rss / 1048576),
}))
