// Asks every sync endpoint of a fresh network and checks the answers. Writes frames.bin.
//   node verify.mjs            (starts its own network.mjs child and stops it)
import http from 'node:http'
import fs from 'node:fs'
import { Repo, MemoryBlockstore, readCarWithRoot, verifyProofs, verifyRecords } from '@atproto/repo'
import { parseCid } from '@atproto/lex-data'
import { Sub, checkCommit, didDoc, get, post, signingKeyOf, startNetwork, brief } from './lib.mjs'

const say = (name, v) => console.log(`${name.padEnd(34)} ${typeof v === 'string' ? v : JSON.stringify(v)}`)
const tryIt = async (name, fn) => { try { say(name, await fn()) } catch (e) { say(name, `ERR ${e.message}`) } }
const { net, stop } = await startNetwork(['--pds', '2', '--accounts', '3', '--records', '6'])
const [A] = net.pds
const acc = net.accounts[0]
fs.rmSync('frames.bin', { force: true })
try {
  await tryIt('_health', async () => (await fetch(`${A.url}/xrpc/_health`)).json())
  await tryIt('server.describeServer', () => get(A.url, 'com.atproto.server.describeServer'))
  await tryIt('sync.listRepos limit=2', async () => {
    const p1 = await get(A.url, 'com.atproto.sync.listRepos', { limit: 2 })
    const p2 = await get(A.url, 'com.atproto.sync.listRepos', { limit: 2, cursor: p1.cursor })
    const p3 = p2.cursor ? await get(A.url, 'com.atproto.sync.listRepos', { limit: 2, cursor: p2.cursor }) : null
    return { page1: p1, page2: { n: p2.repos.length, cursor: p2.cursor ?? null }, page3: p3 && { n: p3.repos.length, cursor: p3.cursor ?? null } }
  })
  await tryIt('sync.getLatestCommit', () => get(A.url, 'com.atproto.sync.getLatestCommit', { did: acc.did }))
  await tryIt('sync.getRepoStatus', () => get(A.url, 'com.atproto.sync.getRepoStatus', { did: acc.did }))
  await tryIt('sync.getRepoStatus unknown', () => get(A.url, 'com.atproto.sync.getRepoStatus', { did: 'did:plc:aaaaaaaaaaaaaaaaaaaaaaaa' }))
  await tryIt('sync.getRepo', async () => {
    const r = await get(A.url, 'com.atproto.sync.getRepo', { did: acc.did }, { raw: true })
    const car = await readCarWithRoot(r.bytes)
    const repo = await Repo.load(new MemoryBlockstore(car.blocks), car.root)
    return { type: r.headers.get('content-type'), len: r.headers.get('content-length'), te: r.headers.get('transfer-encoding'), bytes: r.bytes.length, blocks: car.blocks.size, rev: repo.commit.rev, prev: repo.commit.prev ?? null }
  })
  await tryIt('sync.getRepo order of blocks', async () => {
    const { readCarStream } = await import('@atproto/repo')
    const r = await get(A.url, 'com.atproto.sync.getRepo', { did: acc.did }, { raw: true })
    const { roots, blocks } = await readCarStream([r.bytes])
    const { decode } = await import('@atproto/lex-cbor')
    const kinds = []
    for await (const b of blocks) {
      const v = decode(b.bytes)
      kinds.push(b.cid.equals(roots[0]) ? 'COMMIT' : Array.isArray(v.e) && 'l' in v ? 'node' : 'record')
    }
    return kinds.join(',')
  })
  await tryIt('sync.getRepo since=<2nd last rev>', async () => {
    const revs = []
    const sub = new Sub(A.url, { cursor: 0 }); await sub.opened
    for (const e of await sub.take()) if (e.body.repo === acc.did) revs.push(e.body.rev)
    await sub.close()
    const r = await get(A.url, 'com.atproto.sync.getRepo', { did: acc.did, since: revs.at(-3) }, { raw: true })
    const car = await readCarWithRoot(r.bytes)
    return { since: revs.at(-3), head: revs.at(-1), blocks: car.blocks.size }
  })
  await tryIt('sync.getRecord', async () => {
    const [, , did, collection, rkey] = acc.records[1].uri.split('/')
    const r = await get(A.url, 'com.atproto.sync.getRecord', { did, collection, rkey }, { raw: true })
    const key = signingKeyOf(await didDoc(net.plc.url, did))
    const recs = await verifyRecords(r.bytes, did, key)
    const p = await verifyProofs(r.bytes, [{ collection, rkey, cid: parseCid(acc.records[1].cid) }], did, key)
    return { type: r.headers.get('content-type'), blocks: (await readCarWithRoot(r.bytes)).blocks.size, records: recs.length, verified: p.verified.length }
  })
  await tryIt('sync.getRecord absent', async () => {
    const r = await get(A.url, 'com.atproto.sync.getRecord', { did: acc.did, collection: 'app.bsky.feed.post', rkey: 'nothere' }, { raw: true })
    const key = signingKeyOf(await didDoc(net.plc.url, acc.did))
    const p = await verifyProofs(r.bytes, [{ collection: 'app.bsky.feed.post', rkey: 'nothere', cid: null }], acc.did, key)
    return { absenceProofVerified: p.verified.length === 1, blocks: (await readCarWithRoot(r.bytes)).blocks.size }
  })
  await tryIt('sync.getBlocks', async () => {
    const r = await get(A.url, 'com.atproto.sync.getBlocks', { did: acc.did, cids: acc.records[0].cid }, { raw: true })
    return { type: r.headers.get('content-type'), bytes: r.bytes.length }
  })
  await tryIt('sync.listReposByCollection', () => get(A.url, 'com.atproto.sync.listReposByCollection', { collection: 'app.bsky.feed.post' }))
  await tryIt('sync.listHosts', () => get(A.url, 'com.atproto.sync.listHosts'))
  await tryIt('sync.getHostStatus', () => get(A.url, 'com.atproto.sync.getHostStatus', { hostname: 'localhost' }))
  await tryIt('sync.requestCrawl', () => post(A.url, 'com.atproto.sync.requestCrawl', { hostname: 'localhost' }))
  await tryIt('sync.listBlobs', () => get(A.url, 'com.atproto.sync.listBlobs', { did: acc.did }))
  await tryIt('repo.describeRepo', async () => { const r = await get(A.url, 'com.atproto.repo.describeRepo', { repo: acc.did }); return { handle: r.handle, handleIsCorrect: r.handleIsCorrect, collections: r.collections } })
  await tryIt('repo.listRecords', async () => (await get(A.url, 'com.atproto.repo.listRecords', { repo: acc.did, collection: 'app.bsky.feed.post' })).records.length)
  await tryIt('PLC /:did', async () => { const r = await fetch(`${net.plc.url}/${acc.did}`); return { type: r.headers.get('content-type'), doc: await r.json() } })
  for (const p of ['data', 'log', 'log/audit', 'log/last']) await tryIt(`PLC /:did/${p}`, async () => { const r = await fetch(`${net.plc.url}/${acc.did}/${p}`); const t = await r.text(); return `${r.status} ${t.length} bytes` })
  await tryIt('PLC /export', async () => { const r = await fetch(`${net.plc.url}/export`); const t = await r.text(); return `${r.status} ${t.length} bytes` })
  await tryIt('PLC unknown did', async () => { const r = await fetch(`${net.plc.url}/did:plc:aaaaaaaaaaaaaaaaaaaaaaaa`); return `${r.status} ${await r.text()}` })
  await tryIt('identity.resolveHandle', () => get(A.url, 'com.atproto.identity.resolveHandle', { handle: acc.handle }))
  await tryIt('identity.resolveHandle unknown', () => get(A.url, 'com.atproto.identity.resolveHandle', { handle: 'nobody.pds0.test' }))
  await tryIt('.well-known/atproto-did by Host', () => new Promise((ok, bad) => {
    http.get(`${A.url}/.well-known/atproto-did`, { headers: { host: acc.handle } }, (r) => { let t = ''; r.on('data', (d) => (t += d)); r.on('end', () => ok(`${r.statusCode} ${t}`)) }).on('error', bad)
  }))
  // firehose from seq 0: everything, saved to frames.bin
  const sub = new Sub(A.url, { cursor: 0, file: 'frames.bin' }); await sub.opened
  await post(A.url, 'com.atproto.server.deactivateAccount', {}, { token: acc.accessJwt })
  await post(A.url, 'com.atproto.server.activateAccount', undefined, { token: acc.accessJwt })
  const evs = await sub.take()
  const key = signingKeyOf(await didDoc(net.plc.url, acc.did))
  const counts = {}
  let checked = 0, good = 0
  for (const e of evs) {
    counts[e.header.t] = (counts[e.header.t] ?? 0) + 1
    if (e.header.t === '#commit') {
      checked++
      const c = await checkCommit(e.body, e.body.repo === acc.did ? key : signingKeyOf(await didDoc(net.plc.url, e.body.repo)))
      if (c.sig && c.rootMatches && (c.inverts === true || String(c.inverts).startsWith('no prevData'))) good++
      else say('  BAD commit', { seq: e.body.seq, c })
    }
  }
  say('subscribeRepos cursor=0', { frames: evs.length, counts, commitsChecked: checked, commitsGood: good, firstFrames: evs.slice(0, 6).map((e) => brief(e)) })
  say('#commit body keys', Object.keys(evs.find((e) => e.header.t === '#commit' && e.body.ops.length).body).join(','))
  for (const t of ['#sync', '#identity', '#account']) say(`${t} body keys`, Object.keys(evs.find((e) => e.header.t === t).body).join(','))
  const s = evs.find((e) => e.header.t === '#sync').body
  say('#sync blocks', { blocks: (await readCarWithRoot(s.blocks)).blocks.size })
  say('seqs', evs.map((e) => e.body.seq).join(','))
  await sub.close()
  say('frames.bin', `${fs.statSync('frames.bin').size} bytes`)
} finally { say('network exit code', String(await stop())) }
