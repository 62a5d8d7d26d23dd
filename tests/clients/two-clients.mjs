// node two-clients.mjs URL ROOM [KEEP_MS]: two clients exchange text and presence; exit 0 when all of it arrived.
//
// Prints one JSON line: the text that both end with, and the nodes that answered.
import { connect, until } from './client.mjs'

const [url, room, keep = '0'] = process.argv.slice(2)
if (!url || !room) {
  console.error('usage: node two-clients.mjs URL ROOM [KEEP_MS]')
  process.exit(2)
}

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b)

try {
  const nodes = new Set()
  const onNode = (node) => nodes.add(node)
  const ann = connect(url, room, { onNode })
  const ben = connect(url, room, { onNode })
  await until('both are synced', () => ann.provider.synced && ben.provider.synced)

  // Text, with characters outside the basic plane, from both sides and into the middle of each other's.
  const before = ann.text.toString()
  ann.text.insert(ann.text.length, 'Grüße \u{1f600} ')
  await until('the second sees the first', () => ben.text.toString() === ann.text.toString() && ben.text.length > before.length)
  ben.text.insert(ben.text.length - 1, '\u{1d11e}')
  await until('the first sees the second', () => ann.text.toString().endsWith('\u{1f600}\u{1d11e} '))
  ann.doc.transact(() => { ann.text.delete(before.length, 1); ann.text.insert(before.length, 'g') })
  ben.doc.getMap('map').set('key', [1, { deep: '\u{1f393}' }])
  await until('a map', () => same(ann.doc.getMap('map').get('key'), [1, { deep: '\u{1f393}' }]))
  await until('an overwrite', () => ben.text.toString() === ann.text.toString() && ben.text.toString().includes('grüße'))

  // Presence: each sees the other, with what it says, and sees it go.
  ann.awareness.setLocalStateField('user', { name: 'Ann \u{1f98a}' })
  ben.awareness.setLocalStateField('user', { name: 'Ben' })
  const seen = (who, other) => who.awareness.getStates().get(other.doc.clientID)?.user?.name
  await until('presence', () => seen(ann, ben) === 'Ben' && seen(ben, ann) === 'Ann \u{1f98a}')
  const third = connect(url, room, { onNode })
  await until('a latecomer sees who is there', () => seen(third, ann) === 'Ann \u{1f98a}' && seen(third, ben) === 'Ben')
  third.awareness.setLocalStateField('user', { name: 'Cat' })
  await until('and is seen', () => seen(ann, third) === 'Cat')
  third.awareness.setLocalState(null)
  await until('and is seen to leave, alone', () => !ann.awareness.getStates().has(third.doc.clientID))
  third.provider.destroy()
  if (!seen(ann, ben) || !seen(ben, ann)) throw new Error('a leaving client took others along')

  await new Promise((resolve) => setTimeout(resolve, Number(keep)))
  if (!ann.provider.wsconnected || !ben.provider.wsconnected) throw new Error('a socket was lost')
  console.log(JSON.stringify({ text: ann.text.toString(), nodes: [...nodes] }))
  process.exit(0)
} catch (error) {
  console.error(`two-clients: ${error.message}`)
  process.exit(1)
}
