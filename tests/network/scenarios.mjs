// Makes real-world situations on a private network and prints what the firehose said.
//   node scenarios.mjs [--only name,name] [--did-doc raw|multikey]
// Starts its own network.mjs child (2 PDSes) and stops it. Frames of both PDSes are saved to
// frames.A.bin / frames.B.bin (u32 big-endian length + payload).
import fs from 'node:fs'
import { parseArgs } from 'node:util'
import * as plc from '@did-plc/lib'
import { Secp256k1Keypair } from '@atproto/crypto'
import { readCarWithRoot, verifyCommitSig } from '@atproto/repo'
import { decode } from '@atproto/lex-cbor'
import { Sub, basic, brief, checkCommit, ctl, didDoc, get, post, signingKeyOf, sleep, startNetwork } from './lib.mjs'

const { values: o } = parseArgs({ options: { only: { type: 'string' }, 'did-doc': { type: 'string', default: 'raw' } } })
const only = o.only?.split(',')
const { net, stop } = await startNetwork(['--pds', '2', '--accounts', '5', '--records', '4', '--did-doc', o['did-doc']])
const [A, B] = net.pds
for (const f of ['frames.A.bin', 'frames.B.bin']) fs.rmSync(f, { force: true })
const names = new Map(net.accounts.map((a) => [a.did, a.handle.replace('.test', '')]))
let subA = new Sub(A.url, { cursor: 0, file: 'frames.A.bin' })
let subB = new Sub(B.url, { cursor: 0, file: 'frames.B.bin' })
await subA.opened; await subB.opened
await subA.take(); await subB.take()

const results = []
const stats = { commits: 0, sigOk: 0, invertOk: 0, bad: [] }
async function drain(label) {
  const [a, b] = await Promise.all([subA.take(500), subB.take(500)])
  for (const [name, evs] of [['A', a], ['B', b]]) for (const e of evs) {
    let extra = ''
    if (e.header.t === '#commit') {
      stats.commits++
      let key = null
      try { key = signingKeyOf(await didDoc(net.plc.url, e.body.repo)) } catch (err) { extra = ` [PLC: ${err.message}]` }
      const c = await checkCommit(e.body, key)
      if (c.sig) stats.sigOk++
      if (c.inverts === true) stats.invertOk++
      if (!c.sig || c.inverts !== true) { stats.bad.push({ label, seq: e.body.seq, c }); extra += ` [sig=${c.sig} inverts=${c.inverts}]` }
      extra += ` blocks=${c.blocks}`
    }
    if (e.header.t === '#sync') {
      let key = null
      try { key = signingKeyOf(await didDoc(net.plc.url, e.body.did)) } catch { /* shown as null */ }
      const car = await readCarWithRoot(e.body.blocks)
      const commit = decode(car.blocks.get(car.root))
      extra += ` blocks=${car.blocks.size} signedRev=${commit.rev === e.body.rev ? 'same' : commit.rev} sig=${key && (await verifyCommitSig(commit, key))}`
    }
    console.log(`   ${name} seq=${e.body?.seq ?? '-'} ${brief(e, names)}${extra}`)
  }
}
async function state(pds, did) {
  const out = {}
  for (const [k, m, raw] of [['status', 'getRepoStatus'], ['latest', 'getLatestCommit'], ['repo', 'getRepo', true]]) {
    try {
      const r = await get(pds.url, `com.atproto.sync.${m}`, { did }, { raw })
      out[k] = raw ? `CAR ${r.bytes.length}B` : k === 'latest' ? `rev ${r.rev}` : `active=${r.active} status=${r.status ?? '-'} rev=${r.rev ?? '-'}`
    } catch (e) { out[k] = `${e.status} ${e.body?.error}` }
  }
  const all = await get(pds.url, 'com.atproto.sync.listRepos', { limit: 1000 })
  const r = all.repos.find((x) => x.did === did)
  out.listRepos = r ? `active=${r.active} status=${r.status ?? '-'} rev=${r.rev}` : 'absent'
  return out
}
async function scene(name, fn) {
  if (only && !only.includes(name)) return
  console.log(`\n== ${name}`)
  try { await fn(); await drain(name); results.push([name, 'worked']) } catch (e) {
    console.log(`   FAILED ${e.message}`); await drain(name); results.push([name, `FAILED ${e.message}`])
  }
}
const log = (k, v) => console.log(`   . ${k}: ${typeof v === 'string' ? v : JSON.stringify(v)}`)
const acc = (i) => net.accounts[i] // 0-4 on A, 5-9 on B
const post1 = (n) => ({ $type: 'app.bsky.feed.post', text: `scene ${n}`, createdAt: new Date().toISOString() })
const W = (a, nsid, body) => post(net.pds[a.pds].url, nsid, body, { token: a.accessJwt })
const refused = async (p) => { try { await p; return 'ACCEPTED' } catch (e) { return `${e.status} ${e.body?.error}: ${e.body?.message ?? ''}` } }

await scene('create-account', async () => {
  const r = await post(A.url, 'com.atproto.server.createAccount', { handle: 'late.pds0.test', email: 'late@pds0.example.com', password: 'pw-late' })
  names.set(r.did, 'late.pds0')
})
await scene('create-update-delete', async () => {
  const a = acc(0)
  const k = { repo: a.did, collection: 'com.example.note', rkey: 'self-made' }
  const rec = (n) => ({ $type: 'com.example.note', n })
  const c = await W(a, 'com.atproto.repo.createRecord', { ...k, record: rec(1) })
  await W(a, 'com.atproto.repo.putRecord', { ...k, record: rec(2) })
  await W(a, 'com.atproto.repo.putRecord', { ...k, record: rec(3) })
  await drain('cud')
  await W(a, 'com.atproto.repo.putRecord', { ...k, record: rec(3) })
  log('putRecord with identical value', 'events below (none = no-op)')
  await drain('cud')
  await W(a, 'com.atproto.repo.deleteRecord', k)
  await drain('cud')
  await W(a, 'com.atproto.repo.deleteRecord', k)
  log('deleteRecord of an absent record', 'accepted; events below (none = no-op)')
  await drain('cud')
  log('createRecord with wrong swapCommit', await refused(W(a, 'com.atproto.repo.createRecord', { ...k, record: rec(4), swapCommit: c.commit.cid })))
  log('bad rkey for a post', await refused(W(a, 'com.atproto.repo.createRecord', { ...k, collection: 'app.bsky.feed.post', record: post1(1) })))
  log('invalid post', await refused(W(a, 'com.atproto.repo.createRecord', { repo: a.did, collection: 'app.bsky.feed.post', record: { $type: 'app.bsky.feed.post', text: 5 } })))
  log('same, validate:false', await refused(W(a, 'com.atproto.repo.createRecord', { repo: a.did, collection: 'app.bsky.feed.post', validate: false, record: { $type: 'app.bsky.feed.post', text: 5 } })))
  log('float in a record', await refused(W(a, 'com.atproto.repo.createRecord', { repo: a.did, collection: 'com.example.note', record: { $type: 'com.example.note', x: 1.5 } })))
  log('NUL and lone surrogate in text', await refused(W(a, 'com.atproto.repo.createRecord', { repo: a.did, collection: 'com.example.note', record: { $type: 'com.example.note', s: 'a\u0000b' } })))
  log('integer 2^53-1', await refused(W(a, 'com.atproto.repo.createRecord', { repo: a.did, collection: 'com.example.note', record: { $type: 'com.example.note', n: Number.MAX_SAFE_INTEGER } })))
  log('140 kB record', await refused(W(a, 'com.atproto.repo.createRecord', { repo: a.did, collection: 'com.example.note', record: { $type: 'com.example.note', s: 'x'.repeat(140000) } })))
})
await scene('apply-writes', async () => {
  const a = acc(0)
  const t = 'com.atproto.repo.applyWrites'
  const mk = (i) => ({ $type: `${t}#create`, collection: 'com.example.note', rkey: `n${i}`, value: { $type: 'com.example.note', i } })
  await W(a, t, { repo: a.did, writes: Array.from({ length: 50 }, (_, i) => mk(i)) })
  await W(a, t, { repo: a.did, writes: [
    { $type: `${t}#create`, collection: 'com.example.note', rkey: 'x1', value: { $type: 'com.example.note', x: 1 } },
    { $type: `${t}#update`, collection: 'com.example.note', rkey: 'n3', value: { $type: 'com.example.note', i: 'changed' } },
    { $type: `${t}#delete`, collection: 'com.example.note', rkey: 'n4' },
  ] })
  await drain('aw')
  log('create+delete of one key in one batch', await refused(W(a, t, { repo: a.did, writes: [mk(900), { $type: `${t}#delete`, collection: 'com.example.note', rkey: 'n900' }] })))
  await drain('aw')
  log('200 writes', await refused(W(a, t, { repo: a.did, writes: Array.from({ length: 200 }, (_, i) => mk(1000 + i)) })))
  await drain('aw')
  log('201 writes', await refused(W(a, t, { repo: a.did, writes: Array.from({ length: 201 }, (_, i) => mk(2000 + i)) })))
  await W(a, t, { repo: a.did, writes: [] }).catch((e) => log('empty batch', e.message))
  await drain('aw')
  const all = (await Promise.all([0, 1].map((p) => get(A.url, 'com.atproto.repo.listRecords', { repo: a.did, collection: 'com.example.note', limit: 100 })))).at(0).records
  await W(a, t, { repo: a.did, writes: all.map((r) => ({ $type: `${t}#delete`, collection: 'com.example.note', rkey: r.uri.split('/').pop() })) })
})
await scene('deactivate-reactivate', async () => {
  const a = acc(1)
  await W(a, 'com.atproto.server.deactivateAccount', {})
  await drain('da'); log('state', await state(A, a.did))
  log('write while deactivated', await refused(W(a, 'com.atproto.repo.createRecord', { repo: a.did, collection: 'app.bsky.feed.post', record: post1(5) })))
  await W(a, 'com.atproto.server.activateAccount')
  await drain('da'); log('state', await state(A, a.did))
})
await scene('takedown', async () => {
  const a = acc(2)
  const subject = { $type: 'com.atproto.admin.defs#repoRef', did: a.did }
  const T = (b) => post(A.url, 'com.atproto.admin.updateSubjectStatus', { subject, ...b }, { token: basic(A.adminPassword) })
  await T({ takedown: { applied: true, ref: 'case-1' } })
  await drain('td'); log('state', await state(A, a.did))
  await T({ takedown: { applied: false } })
  await drain('td'); log('state', await state(A, a.did))
  await T({ takedown: { applied: true } }); await T({ deactivated: { applied: true } })
  log('state takendown + deactivated', await state(A, a.did))
  await T({ takedown: { applied: false } }); await T({ deactivated: { applied: false } })
})
await scene('handle-change', async () => {
  const a = acc(1)
  await W(a, 'com.atproto.identity.updateHandle', { handle: 'renamed.pds0.test' })
  log('PLC alsoKnownAs', (await didDoc(net.plc.url, a.did)).alsoKnownAs)
  await post(A.url, 'com.atproto.admin.updateAccountHandle', { did: a.did, handle: 'byadmin.pds0.test' }, { token: basic(A.adminPassword) })
  log('PLC alsoKnownAs', (await didDoc(net.plc.url, a.did)).alsoKnownAs)
  log('old handle', await refused(get(A.url, 'com.atproto.identity.resolveHandle', { handle: a.handle })))
  await W(a, 'com.atproto.identity.updateHandle', { handle: 'byadmin.pds0.test' })
  log('same handle again', 'events below')
})
await scene('key-rotation', async () => {
  const a = acc(0)
  const r = await ctl(net, 'rotate-key', { pds: 0, did: a.did })
  log('keys', r)
  log('PLC now', signingKeyOf(await didDoc(net.plc.url, a.did)) === r.after ? 'new key' : 'OLD KEY')
  await drain('kr'); log('state (does listRepos know the new head?)', await state(A, a.did))
  await W(a, 'com.atproto.repo.createRecord', { repo: a.did, collection: 'app.bsky.feed.post', record: post1(6) })
})
await scene('key-changed-in-plc-only', async () => {
  // the DID owner publishes a key the PDS does not hold: commits stop verifying; then it is put right
  const a = acc(3)
  const rot = await Secp256k1Keypair.import(A.plcRotationKeyHex)
  const client = new plc.Client(net.plc.url)
  const other = await Secp256k1Keypair.create()
  const before = signingKeyOf(await didDoc(net.plc.url, a.did))
  await client.updateAtprotoKey(a.did, rot, other.did())
  await W(a, 'com.atproto.repo.createRecord', { repo: a.did, collection: 'app.bsky.feed.post', record: post1(7) })
  await drain('kp')
  await client.updateAtprotoKey(a.did, rot, before)
  await W(a, 'com.atproto.repo.createRecord', { repo: a.did, collection: 'app.bsky.feed.post', record: post1(8) })
})
await scene('import-into-active-repo', async () => {
  const a = acc(3)
  const old = await get(A.url, 'com.atproto.sync.getRepo', { did: a.did }, { raw: true })
  await W(a, 'com.atproto.repo.createRecord', { repo: a.did, collection: 'app.bsky.feed.post', record: post1(9) })
  await drain('im'); log('before import', await state(A, a.did))
  log('importRepo of the older CAR', await refused(post(A.url, 'com.atproto.repo.importRepo', old.bytes, { token: a.accessJwt, type: 'application/vnd.ipld.car' })))
  await drain('im'); log('after import (no event above = silent change)', await state(A, a.did))
  await W(a, 'com.atproto.server.activateAccount')
  log('activateAccount again', 'events below'); await drain('im')
  await W(a, 'com.atproto.repo.createRecord', { repo: a.did, collection: 'app.bsky.feed.post', record: post1(10) })
  log('next write', 'event below')
})
await scene('resequenced-sync', async () => {
  for (const kind of ['sync', 'identity', 'account']) await ctl(net, 'emit', { pds: 0, did: acc(4).did, kind })
})
await scene('migration-A-to-B', async () => {
  const a = acc(4)
  const { token } = await get(A.url, 'com.atproto.server.getServiceAuth', { aud: B.did, lxm: 'com.atproto.server.createAccount' }, { token: a.accessJwt })
  const handle = 'moved.pds1.test'
  const nb = await post(B.url, 'com.atproto.server.createAccount', { did: a.did, handle, email: 'moved@pds1.example.com', password: 'pw-moved' }, { token })
  log('B createAccount', 'no event expected (deactivated)'); await drain('mi'); log('state on B', await state(B, a.did))
  const car = await get(A.url, 'com.atproto.sync.getRepo', { did: a.did }, { raw: true })
  await post(B.url, 'com.atproto.repo.importRepo', car.bytes, { token: nb.accessJwt, type: 'application/vnd.ipld.car' })
  log('B importRepo done', 'events:'); await drain('mi')
  log('B checkAccountStatus', await get(B.url, 'com.atproto.server.checkAccountStatus', {}, { token: nb.accessJwt }))
  log('B activate before the PLC op', await refused(post(B.url, 'com.atproto.server.activateAccount', undefined, { token: nb.accessJwt })))
  const creds = await get(B.url, 'com.atproto.identity.getRecommendedDidCredentials', {}, { token: nb.accessJwt })
  await post(A.url, 'com.atproto.identity.requestPlcOperationSignature', undefined, { token: a.accessJwt })
  const mail = await ctl(net, 'email-token', { pds: 0, did: a.did, purpose: 'plc_operation' })
  const { operation } = await post(A.url, 'com.atproto.identity.signPlcOperation', { token: mail.token, ...creds }, { token: a.accessJwt })
  await post(B.url, 'com.atproto.identity.submitPlcOperation', { operation }, { token: nb.accessJwt })
  log('PLC op submitted through B', 'events:'); await drain('mi')
  await post(B.url, 'com.atproto.server.activateAccount', undefined, { token: nb.accessJwt })
  log('B activated', 'events:'); await drain('mi')
  await W(a, 'com.atproto.server.deactivateAccount', {})
  log('A deactivated', 'events:'); await drain('mi')
  log('state on A', await state(A, a.did)); log('state on B', await state(B, a.did))
  await post(B.url, 'com.atproto.repo.createRecord', { repo: a.did, collection: 'app.bsky.feed.post', record: post1(11) }, { token: nb.accessJwt })
  log('first write on B', 'event:'); await drain('mi')
  log('PLC service', (await didDoc(net.plc.url, a.did)).service[0].serviceEndpoint === B.url ? 'B' : 'NOT B')
  await post(A.url, 'com.atproto.admin.deleteAccount', { did: a.did }, { token: basic(A.adminPassword) })
  log('old account deleted on A', 'event (must NOT delete the data synced from B):')
})
await scene('account-deletion', async () => {
  const a = acc(2)
  const s = await post(A.url, 'com.atproto.server.createSession', { identifier: a.did, password: a.password })
  await post(A.url, 'com.atproto.server.requestAccountDelete', undefined, { token: s.accessJwt })
  const mail = await ctl(net, 'email-token', { pds: 0, did: a.did, purpose: 'delete_account' })
  await post(A.url, 'com.atproto.server.deleteAccount', { did: a.did, password: a.password, token: mail.token })
  await drain('de'); log('state', await state(A, a.did))
  log('PLC', (await refused(didDoc(net.plc.url, a.did))) === 'ACCEPTED' ? 'did document still served' : 'gone')
  const replay = new Sub(A.url, { cursor: 0 }); await replay.opened
  const evs = await replay.take(); await replay.close()
  log('replay from 0, events of that DID', evs.filter((e) => (e.body.repo ?? e.body.did) === a.did).map((e) => brief(e, names)))
  const seqs = evs.map((e) => e.body.seq)
  log('replay seqs', { first: seqs[0], last: seqs.at(-1), count: seqs.length, gaps: seqs.slice(1).filter((s, i) => s !== seqs[i] + 1).length })
})
await scene('plc-tombstone', async () => {
  const a = acc(9)
  await new plc.Client(net.plc.url).tombstone(a.did, await Secp256k1Keypair.import(B.plcRotationKeyHex))
  const r = await fetch(`${net.plc.url}/${a.did}`)
  log('PLC answer', `${r.status} ${await r.text()}`)
  log('PDS still writes', await refused(post(B.url, 'com.atproto.repo.createRecord', { repo: a.did, collection: 'app.bsky.feed.post', record: post1(12) }, { token: a.accessJwt })))
})
await scene('plc-outage', async () => {
  const a = acc(8)
  await ctl(net, 'stop-plc')
  await W(a, 'com.atproto.repo.createRecord', { repo: a.did, collection: 'app.bsky.feed.post', record: post1(13) })
  log('PLC down', await didDoc(net.plc.url, a.did).catch((e) => String(e.cause?.code ?? e.message)))
  await ctl(net, 'start-plc')
  log('PLC back', (await didDoc(net.plc.url, a.did)).id === a.did ? 'ok' : 'lost')
})
await scene('cursors', async () => {
  const last = subA.events.at(-1).body.seq
  const run = async (cursor) => {
    const s = new Sub(A.url, { cursor }); await s.opened
    const evs = await s.take(400); const closed = s.closed; await s.close()
    return { frames: evs.length, first: evs[0] && `${evs[0].body?.seq ?? '-'} ${brief(evs[0], names)}`, header: evs[0]?.header, body: evs[0]?.header.op === -1 || evs[0]?.header.t === '#info' ? evs[0].body : undefined, last: evs.at(-1)?.body?.seq, closed }
  }
  log('cursor omitted', await run(undefined))
  log('cursor 0', await run(0))
  log(`cursor last-3 (${last - 3})`, await run(last - 3))
  log(`cursor = last (${last})`, await run(last))
  log(`cursor last+1000 (future)`, await run(last + 1000))
  log('cursor -5', await run(-5).catch((e) => e.message))
  await ctl(net, 'backfill', { pds: 0, ms: 1500 })
  await sleep(1600)
  await W(acc(0), 'com.atproto.repo.createRecord', { repo: acc(0).did, collection: 'app.bsky.feed.post', record: post1(14) })
  log('cursor 1, backfill window 1.5 s', await run(1))
  await sleep(1700)
  log('cursor 1, window empty', await run(1))
  await ctl(net, 'backfill', { pds: 0, ms: 86400000 })
})
await scene('slow-consumer', async () => {
  // reads nothing while the PDS sequences more than the socket buffers plus its own buffer (500 events)
  const a = acc(0)
  const s = new Sub(A.url); await s.opened
  s.ws.pause()
  for (let r = 0; r < 90; r++) await W(a, 'com.atproto.repo.createRecord', { repo: a.did, collection: 'com.example.big', record: { $type: 'com.example.big', r, big: 'y'.repeat(140000) } })
  for (let r = 0; r < 30; r++) await Promise.all(Array.from({ length: 50 }, () => ctl(net, 'emit', { pds: 0, did: a.did, kind: 'sync' })))
  await sleep(1500)
  s.ws.resume()
  const evs = await s.take(1500)
  log('paused consumer got', { frames: evs.length, lastFrame: evs.at(-1) && (evs.at(-1).header.op === -1 ? evs.at(-1).body : brief(evs.at(-1), names)), lastSeq: evs.filter((e) => e.body?.seq).at(-1)?.body.seq, closed: s.closed })
  await s.close()
  await subA.take(800); subA.mark = subA.events.length
  log('live consumer last seq', String(subA.events.at(-1).body.seq))
})
await scene('pds-restart', async () => {
  await drain('pr')
  const last = subA.events.at(-1).body.seq
  await ctl(net, 'stop', { pds: 0 })
  await sleep(200)
  log('consumer saw', subA.closed ?? 'still open')
  log('while down', await get(A.url, '_health').catch((e) => String(e.cause?.code ?? e.message)))
  await ctl(net, 'start', { pds: 0 })
  await W(acc(0), 'com.atproto.repo.createRecord', { repo: acc(0).did, collection: 'app.bsky.feed.post', record: post1(15) })
  subA = new Sub(A.url, { cursor: last, file: 'frames.A.bin' }); await subA.opened
  log(`resumed from ${last}`, 'events below')
})
await scene('blobs', async () => {
  const a = acc(0)
  const png = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==', 'base64')
  const { blob } = await post(A.url, 'com.atproto.repo.uploadBlob', new Uint8Array(png), { token: a.accessJwt, type: 'image/png' })
  await W(a, 'com.atproto.repo.createRecord', { repo: a.did, collection: 'com.example.pic', record: { $type: 'com.example.pic', blob, bytes: { $bytes: 'AAECAw' }, link: { $link: blob.ref.$link } } })
  log('listBlobs', await get(A.url, 'com.atproto.sync.listBlobs', { did: a.did }))
  log('getBlob', (await get(A.url, 'com.atproto.sync.getBlob', { did: a.did, cid: blob.ref.$link }, { raw: true })).bytes.length)
})

console.log('\n== summary')
for (const r of results) console.log(`   ${r[0].padEnd(28)} ${r[1]}`)
console.log('   commits', JSON.stringify({ ...stats, bad: stats.bad.map((b) => ({ ...b, c: { sig: b.c.sig, inverts: b.c.inverts } })) }))
for (const [n, s] of [['A', subA], ['B', subB]]) console.log(`   frames ${n}`, s.events.length)
await subA.close(); await subB.close()
console.log('   network exit code', await stop())
process.exit(0)
