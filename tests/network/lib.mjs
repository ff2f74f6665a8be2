// Small shared helpers for the scripts of this folder (client side only).
import { once } from 'node:events'
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import WebSocket from 'ws'
import { decodeAll } from '@atproto/lex-cbor'
import { ensureAtpDocument } from '@atproto/identity'
import { MST, MemoryBlockstore, def, readCarWithRoot, verifyCommitSig } from '@atproto/repo'

export const here = path.dirname(fileURLToPath(import.meta.url))
export const sleep = (ms) => new Promise((ok) => setTimeout(ok, ms))
export const basic = (pw) => 'Basic ' + Buffer.from(`admin:${pw}`).toString('base64')
const authz = (t) => (t ? { authorization: t.startsWith('Basic ') ? t : `Bearer ${t}` } : {})

async function finish(res, what, raw) {
  if (raw && res.ok) return { headers: res.headers, bytes: new Uint8Array(await res.arrayBuffer()) }
  const text = await res.text()
  let v = null
  try { v = text ? JSON.parse(text) : null } catch { v = text }
  if (!res.ok) throw Object.assign(new Error(`${what} -> ${res.status} ${text.slice(0, 300)}`), { status: res.status, body: v })
  return v
}
export async function get(base, nsid, params = {}, { token, raw } = {}) {
  const u = new URL(`/xrpc/${nsid}`, base)
  for (const [k, v] of Object.entries(params)) if (v !== undefined) u.searchParams.set(k, String(v))
  return finish(await fetch(u, { headers: authz(token) }), nsid, raw)
}
export async function post(base, nsid, body, { token, type } = {}) {
  const isBytes = body instanceof Uint8Array
  const headers = { ...authz(token) }
  if (body !== undefined) headers['content-type'] = type ?? (isBytes ? 'application/octet-stream' : 'application/json')
  return finish(await fetch(new URL(`/xrpc/${nsid}`, base), {
    method: 'POST', headers, body: body === undefined ? undefined : isBytes ? body : JSON.stringify(body),
  }), nsid)
}
export async function ctl(net, op, args = {}) {
  const r = await fetch(net.control, { method: 'POST', body: JSON.stringify({ op, ...args }) })
  const v = await r.json()
  if (!r.ok) throw new Error(`control ${op}: ${v.error}`)
  return v
}

export function decodeFrame(bytes) {
  const [header, body] = [...decodeAll(bytes)]
  return { header, body }
}
// one line about an event; `names` maps did -> short name
export function brief({ header, body }, names = new Map()) {
  if (header.op === -1) return `ERROR ${body.error}`
  const t = header.t
  const who = names.get(body.repo ?? body.did) ?? body.repo ?? body.did ?? ''
  if (t === '#commit') {
    const all = body.ops.map((o) => `${o.action}${'prev' in o && o.prev ? '+prev' : ''}`)
    const ops = all.length > 6 ? [...all.slice(0, 3), `… ${all.length} in all`] : all
    return `#commit ${who} rev=${body.rev} since=${body.since ?? 'null'} prevData=${body.prevData ? 'yes' : 'NONE'} ops=[${ops.join(',')}]`
  }
  if (t === '#sync') return `#sync ${who} rev=${body.rev}`
  if (t === '#identity') return `#identity ${who} handle=${body.handle ?? '-'}`
  if (t === '#account') return `#account ${who} active=${body.active} status=${body.status ?? '-'}`
  if (t === '#info') return `#info ${body.name}`
  return `${t} ?`
}
// live subscription; pushes every frame to .events
export class Sub {
  constructor(base, { cursor, file, onEvent } = {}) {
    const u = new URL('/xrpc/com.atproto.sync.subscribeRepos', base.replace(/^http/, 'ws'))
    if (cursor !== undefined) u.searchParams.set('cursor', String(cursor))
    this.events = []
    this.closed = null
    this.out = file ? fs.openSync(file, 'a') : null
    this.ws = new WebSocket(u)
    this.ws.on('message', (data) => {
      const bytes = new Uint8Array(data)
      if (this.out !== null) { // u32 big-endian length + raw websocket payload
        const len = Buffer.alloc(4); len.writeUInt32BE(bytes.length)
        fs.writeSync(this.out, Buffer.concat([len, bytes]))
      }
      const ev = { ...decodeFrame(bytes), bytes }
      this.events.push(ev)
      onEvent?.(ev)
    })
    this.ws.on('close', (code, reason) => { this.closed = { code, reason: String(reason) } })
    this.ws.on('error', (e) => { this.error = e })
    this.opened = new Promise((ok, bad) => { this.ws.once('open', ok); this.ws.once('error', bad) })
  }
  // wait until nothing new came for `quiet` ms; return what came since the last take()
  async take(quiet = 600) {
    let n = -1
    while (n !== this.events.length) { n = this.events.length; await sleep(quiet) }
    const from = this.mark ?? 0
    this.mark = this.events.length
    return this.events.slice(from)
  }
  async close() {
    if (this.ws.readyState < 2) { this.ws.close(); await Promise.race([once(this.ws, 'close'), sleep(2000)]) }
    if (this.out !== null) { fs.closeSync(this.out); this.out = null }
  }
}

export async function didDoc(plcUrl, did) {
  const r = await fetch(`${plcUrl}/${did}`)
  if (!r.ok) throw new Error(`PLC ${r.status} for ${did}`)
  return r.json()
}
// @did-plc/server 0.0.1 answers the LEGACY key form (EcdsaSecp256k1VerificationKey2019, id "#atproto",
// uncompressed point without multicodec prefix); @atproto/identity knows both forms
export const signingKeyOf = (doc) => ensureAtpDocument(doc).signingKey

// Sync v1.1 check of one #commit body: signature, and MST inversion back to prevData
export async function checkCommit(body, didKey) {
  const out = { blocks: 0, sig: null, rootMatches: null, inverts: null }
  const car = await readCarWithRoot(body.blocks)
  out.blocks = car.blocks.size
  const store = new MemoryBlockstore(car.blocks)
  const commit = await store.readObj(car.root, def.commit)
  out.rootMatches = car.root.equals(body.commit) && commit.rev === body.rev && commit.did === body.repo
  if (didKey) out.sig = await verifyCommitSig(commit, didKey)
  try {
    let mst = MST.load(store, commit.data)
    for (const op of [...body.ops].reverse()) {
      if (op.action === 'create') mst = await mst.delete(op.path)
      else if (op.action === 'update') mst = await mst.update(op.path, op.prev)
      else mst = await mst.add(op.path, op.prev)
    }
    const root = await mst.getPointer()
    out.inverts = body.prevData ? root.equals(body.prevData) : `no prevData (inverted root ${root})`
  } catch (e) { out.inverts = `FAILED ${e.constructor.name}: ${e.message.slice(0, 160)}` }
  return out
}

// start network.mjs as our own child; returns {net, child, stop()}
export async function startNetwork(args = []) {
  const child = spawn(process.execPath, [path.join(here, 'network.mjs'), ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  let buf = ''
  const net = await new Promise((ok, bad) => {
    child.stdout.on('data', (d) => { buf += d; const i = buf.indexOf('\n'); if (i >= 0) ok(JSON.parse(buf.slice(0, i))) })
    child.once('exit', (c) => bad(new Error(`network.mjs exited ${c}`)))
  })
  const stop = async () => { if (child.exitCode === null) { child.kill('SIGTERM'); await once(child, 'exit') } return child.exitCode }
  return { net, child, stop }
}
