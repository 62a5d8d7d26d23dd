// node fresh.mjs URL ROOM: prints the text of a document as a client sees it that has nothing of it.
import { connect, until } from './client.mjs'

const [url, room] = process.argv.slice(2)
if (!url || !room) {
  console.error('usage: node fresh.mjs URL ROOM')
  process.exit(2)
}
try {
  const client = connect(url, room)
  await until('the document is synced', () => client.provider.synced)
  process.stdout.write(client.text.toString(), () => process.exit(0))
} catch (error) {
  console.error(`fresh: ${error.message}`)
  process.exit(1)
}
