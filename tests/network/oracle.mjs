// Independent truth about one repo, by @atproto/repo:
//   node oracle.mjs --pds URL --did DID [--plc URL] [--all] [--pretty]
// Fetches sync.getRepo, verifies CIDs, MST and (with --plc) the commit signature, and prints one
// JSON document: {did, rev, head, data, signatureValid, count, records:[{collection, rkey, cid, value}]}
// sorted by path. --all prints one such JSON line for every repo the PDS lists. --stdin answers every line
// {pds, did} with one: a JSON line with `bad` for what would be the exit code.
// Exit 1 if anything does not verify; a repo the PDS refuses prints {did, error}.
import readline from 'node:readline'
import { parseArgs } from 'node:util'
import { MemoryBlockstore, Repo, cidForRecord, readCarWithRoot, verifyRepoCar } from '@atproto/repo'
import { lexToJson } from '@atproto/lex-json'
import { didDoc, get, signingKeyOf } from './lib.mjs'

const { values: o } = parseArgs({ options: {
  pds: { type: 'string' }, did: { type: 'string' }, plc: { type: 'string' },
  all: { type: 'boolean', default: false }, stdin: { type: 'boolean', default: false }, pretty: { type: 'boolean', default: false },
} })
let bad = false
async function one(did) {
  let car
  try { car = await get(o.pds, 'com.atproto.sync.getRepo', { did }, { raw: true }) } catch (e) {
    return { did, error: e.body?.error ?? e.message }
  }
  const key = o.plc ? signingKeyOf(await didDoc(o.plc, did)) : undefined
  let signatureValid = null
  let verified
  try { verified = await verifyRepoCar(car.bytes, did, key); if (key) signatureValid = true } catch (e) {
    bad = true
    return { did, error: `verifyRepoCar: ${e.message}`, signatureValid: false }
  }
  const { root, blocks } = await readCarWithRoot(car.bytes)
  const repo = await Repo.load(new MemoryBlockstore(blocks), root)
  const records = []
  for await (const r of repo.walkRecords()) {
    if (!(await cidForRecord(r.record)).equals(r.cid)) bad = true // re-encode must give the same CID
    records.push({ collection: r.collection, rkey: r.rkey, cid: r.cid.toString(), value: lexToJson(r.record) })
  }
  records.sort((a, b) => (`${a.collection}/${a.rkey}` < `${b.collection}/${b.rkey}` ? -1 : 1))
  if (records.length !== verified.creates.length) bad = true
  return { did, rev: repo.commit.rev, head: root.toString(), data: repo.commit.data.toString(), signatureValid, count: records.length, records }
}
const show = (v) => console.log(JSON.stringify(v, null, o.pretty ? 2 : 0))
if (o.stdin) {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const q = JSON.parse(line)
    o.pds = q.pds
    bad = false
    const answer = await one(q.did).catch((e) => ({ did: q.did, error: String(e?.stack ?? e) }))
    show({ ...answer, bad })
  }
} else if (o.all) {
  let cursor
  do {
    const page = await get(o.pds, 'com.atproto.sync.listRepos', { limit: 500, cursor })
    for (const r of page.repos) show(await one(r.did))
    cursor = page.cursor
  } while (cursor)
} else show(await one(o.did))
if (o.stdin) process.exit(0)
process.exitCode = bad ? 1 : 0 // not exit(): it would cut what a pipe has not taken yet
