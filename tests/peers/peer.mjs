// The protocol's reference implementation of repos, as a process that answers questions.
//
// Each line of standard input is a question {ask, ...}, each line of standard output its answer, or
// {error}. Bytes are base64, CIDs text. `start` makes a repo that `edit` and `export` then mean.
import readline from 'node:readline'
import { Secp256k1Keypair } from '@atproto/crypto'
import { decode } from '@atproto/lex-cbor'
import { parseCid } from '@atproto/lex-data'
import {
  MST, MemoryBlockstore, Repo, blocksToCarFile, getFullRepo, readCarWithRoot, verifyDiffCar, verifyRepoCar,
} from '@atproto/repo'

const toText = (bytes) => Buffer.from(bytes).toString('base64')
const toBytes = (text) => new Uint8Array(Buffer.from(text, 'base64'))
let keypair
let repo

function toWrite({ action, path, record }) {
  const [collection, rkey] = path.split('/')
  const write = { action, collection, rkey }
  return record === undefined ? write : { ...write, record: decode(toBytes(record)) }
}

async function exported(head) {
  const parts = []
  for await (const part of getFullRepo(repo.storage, head)) parts.push(part)
  return toText(Buffer.concat(parts))
}

async function load(car) {
  const { root, blocks } = await readCarWithRoot(car)
  return Repo.load(new MemoryBlockstore(blocks), root)
}

const answers = {
  // The tree of some leaves, added in the given order, less those deleted afterwards.
  async tree({ leaves, deleted }) {
    let tree = await MST.create(new MemoryBlockstore())
    for (const [key, cid] of leaves) tree = await tree.add(key, parseCid(cid))
    for (const key of deleted) tree = await tree.delete(key)
    const { root, blocks } = await tree.getUnstoredBlocks()
    return { root: root.toString(), car: toText(await blocksToCarFile(root, blocks)) }
  },
  async start({ key, did, rev, records }) {
    keypair = await Secp256k1Keypair.import(key)
    const storage = new MemoryBlockstore()
    const writes = records.map(([path, record]) => toWrite({ action: 'create', path, record }))
    const commit = await Repo.formatInitCommit(storage, did, keypair, writes, rev)
    repo = await Repo.createFromCommit(storage, commit)
    return { car: await exported(commit.cid) }
  },
  async edit({ writes }) {
    const before = repo.commit
    const commit = await repo.formatCommit(writes.map(toWrite), keypair)
    repo = await repo.applyCommit(commit)
    const proofs = {}
    for (const { path } of writes) {
      proofs[path] = (await repo.data.getCoveringProof(path)).cids().map(String)
    }
    return {
      head: commit.cid.toString(), rev: commit.rev, since: before.rev, data: repo.commit.data.toString(),
      prevData: before.data.toString(), car: toText(await blocksToCarFile(commit.cid, commit.relevantBlocks)), proofs,
    }
  },
  async export() {
    return { car: await exported(repo.cid) }
  },
  async read({ car, did, key }) {
    const bytes = toBytes(car)
    const { creates } = await verifyRepoCar(bytes, did, key)
    const { commit, cid } = await load(bytes)
    const records = creates.map((c) => [`${c.collection}/${c.rkey}`, c.cid.toString()])
    return { head: cid.toString(), rev: commit.rev, data: commit.data.toString(), records }
  },
  // What a commit's CAR changes in the repo of an earlier export.
  async diff({ before, after, did, key }) {
    const { writes, commit } = await verifyDiffCar(await load(toBytes(before)), toBytes(after), did, key)
    return {
      rev: commit.rev,
      writes: writes.map((w) => [w.action, `${w.collection}/${w.rkey}`, w.cid?.toString() ?? null]),
    }
  },
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const question = JSON.parse(line)
  const answer = await answers[question.ask](question).catch((error) => ({ error: String(error?.stack ?? error) }))
  process.stdout.write(`${JSON.stringify(answer)}\n`)
}
