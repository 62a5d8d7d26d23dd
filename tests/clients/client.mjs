// One unmodified y-websocket client for the scripts beside this file.
import * as Y from 'yjs'
import { WebsocketProvider } from 'y-websocket'
import WebSocket from 'ws'

/** Where the rooms are: `http(s)://` and `ws(s)://` both name a node or an edge. */
export const roomsUrl = (url) => `${url.replace(/^http/, 'ws').replace(/\/$/, '')}/rt/v1/collab`

/** The text that all scripts edit. */
export const TEXT = 'text'

/**
 * Connects. `disableBc`: without it, clients in one process sync through BroadcastChannel and a test passes with the
 * server off. `onNode` is told which node answered each handshake.
 */
export const connect = (url, room, { onNode, ...options } = {}) => {
  class Socket extends WebSocket {
    constructor (...args) {
      super(...args)
      this.once('upgrade', (response) => onNode?.(response.headers['x-collab-node']))
    }
  }
  const doc = new Y.Doc()
  const provider = new WebsocketProvider(roomsUrl(url), room, doc, {
    WebSocketPolyfill: Socket,
    disableBc: true,
    ...options
  })
  return { doc, provider, text: doc.getText(TEXT), awareness: provider.awareness }
}

/** Waits until `holds()`; rejects after `seconds`, saying what did not come. */
export const until = async (what, holds, seconds = 30) => {
  const end = Date.now() + seconds * 1000
  while (!holds()) {
    if (Date.now() > end) throw new Error(`not within ${seconds} s: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
