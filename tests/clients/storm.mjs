// node storm.mjs CLIENTS ROOMS PREFIX URL[,URL...]: many clients in many rooms, told by JSON lines what to do.
//
// A line on stdin is a command, its answer is one line on stdout with the same `do`; `error` says that it did not work.
//   {"do":"connect"}                  -> { clients, nodes: { ROOM: NODE } }   all clients are synced
//   {"do":"edit","each":1}            -> { edits }              every client makes `each` edits; does not wait for anybody
//   {"do":"seen"}                     -> { seen, made }         edits that a client other than their maker has received
//   {"do":"wait-seen","seconds":30}   -> { seen, made }         waits until all edits so far are seen
//   {"do":"sockets"}                  -> { open, opened, closed, codes: { CODE: n } }
//   {"do":"wait-converged"}           -> { rooms }              all sockets open, all clients of a room have one state
//   {"do":"report"}                   -> { rooms: { ROOM: { text, clients, seen, missing, node } } }
//                                        `missing`: edits that were seen and are not in every client now
//   {"do":"stop"}                     -> {}                     and ends
// Clients are spread over rooms and URLs in turn. An edit is a token such as `<12.3>`, unique in the run.
import { createInterface } from 'node:readline'
import * as Y from 'yjs'
import { connect, until } from './client.mjs'

const [count, roomCount, prefix, urlList] = process.argv.slice(2)
if (!urlList || !(Number(count) > 0) || !(Number(roomCount) > 0)) {
  console.error('usage: node storm.mjs CLIENTS ROOMS PREFIX URL[,URL...]')
  process.exit(2)
}
// Each provider adds a listener of its own; node would take them for a leak.
process.setMaxListeners(0)
const urls = urlList.split(',')
const rooms = Array.from({ length: Number(roomCount) }, (_, index) => `${prefix}${index}`)
const clients = []
const made = new Map() // token -> { room, seen }
const sockets = { opened: 0, closed: 0, codes: {} }
const nodes = new Map(rooms.map((room) => [room, null]))

const tokensOf = (text) => text.match(/<\d+\.\d+>/g) ?? []

const start = (index) => {
  const room = rooms[index % rooms.length]
  const url = urls[Math.floor(index / rooms.length) % urls.length]
  const client = connect(url, room, { onNode: (node) => nodes.set(room, node) })
  Object.assign(client, { index, room, edits: 0 })
  client.provider.on('status', ({ status }) => { if (status === 'connected') sockets.opened += 1 })
  client.provider.on('connection-close', (event) => {
    sockets.closed += 1
    const code = event?.code ?? 0
    sockets.codes[code] = (sockets.codes[code] ?? 0) + 1
  })
  // What comes from the provider was made by somebody else.
  client.text.observe((event, transaction) => {
    if (transaction.origin !== client.provider) return
    for (const { insert } of event.changes.delta) {
      if (typeof insert !== 'string') continue
      for (const token of tokensOf(insert)) {
        const edit = made.get(token)
        if (edit && edit.maker !== client.index) edit.seen = true
      }
    }
  })
  clients.push(client)
}

const counts = () => ({ seen: [...made.values()].filter((edit) => edit.seen).length, made: made.size })
const inRoom = (room) => clients.filter((client) => client.room === room)
const state = (client) => Buffer.from(Y.encodeStateAsUpdate(client.doc)).toString('base64')
const converged = (room) => {
  const members = inRoom(room)
  const text = members[0].text.toString()
  return members.every((client) => client.provider.wsconnected && client.provider.synced && client.text.toString() === text)
}

const commands = {
  async connect ({ seconds = 60 }) {
    for (let index = 0; index < Number(count); index += 1) start(index)
    await until('all clients are synced', () => clients.every((client) => client.provider.synced), seconds)
    return { clients: clients.length, nodes: Object.fromEntries(nodes) }
  },
  async edit ({ each = 1 }) {
    for (let round = 0; round < each; round += 1) {
      for (const client of clients) {
        const token = `<${client.index}.${client.edits++}>`
        made.set(token, { room: client.room, maker: client.index, seen: false })
        // At the end or at a border between tokens, so that no token is ever split.
        const borders = [...client.text.toString().matchAll(/</g)].map((match) => match.index)
        const at = client.edits % 2 ? client.text.length : (borders[borders.length >> 1] ?? 0)
        client.text.insert(at, token)
      }
      await new Promise((resolve) => setTimeout(resolve, 0))
    }
    return { edits: made.size }
  },
  async seen () { return counts() },
  async 'wait-seen' ({ seconds = 30 }) {
    await until('every edit is seen by another client', () => { const { seen, made } = counts(); return seen === made }, seconds)
    return counts()
  },
  async sockets () {
    return { open: clients.filter((client) => client.provider.wsconnected).length, ...sockets }
  },
  async 'wait-converged' ({ seconds = 60 }) {
    for (const room of rooms) await until(`${room} converges`, () => converged(room), seconds)
    // Clients may encode one state in different orders, never in different lengths.
    for (const room of rooms) {
      const members = inRoom(room)
      const first = state(members[0])
      if (!members.every((client) => state(client).length === first.length)) throw new Error(`${room}: states differ`)
    }
    return { rooms: rooms.length }
  },
  async report () {
    const report = {}
    for (const room of rooms) {
      const members = inRoom(room)
      const seen = [...made].filter(([, edit]) => edit.room === room && edit.seen).map(([token]) => token)
      const held = members.map((client) => new Set(tokensOf(client.text.toString())))
      const missing = seen.filter((token) => !held.every((tokens) => tokens.has(token)))
      report[room] = { text: members[0].text.toString(), clients: members.length, seen, missing, node: nodes.get(room) }
    }
    return { rooms: report }
  },
  async stop () {
    for (const client of clients) client.provider.destroy()
    return {}
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  if (!line.trim()) continue
  let command
  try {
    command = JSON.parse(line)
    if (!commands[command.do]) throw new Error(`unknown command; known: ${Object.keys(commands).join(', ')}`)
    const answer = await commands[command.do](command)
    console.log(JSON.stringify({ do: command.do, ...answer }))
  } catch (error) {
    console.log(JSON.stringify({ do: command?.do, error: error.message }))
  }
  if (command?.do === 'stop') process.exit(0)
}
