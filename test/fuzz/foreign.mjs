// A thread of its own with live tensors whose handles it tells; it stays until it is ended.
import { parentPort } from 'node:worker_threads'
import { register } from 'tsx/esm/api'

register()
const { zeros } = await import('../../lib/index.ts')
const { handleOf } = await import('../../lib/native/handle.ts')
const tensors = [zeros([2]), zeros([2, 3]), zeros([])]
parentPort.postMessage(tensors.map((tensor) => handleOf(tensor)))
setInterval(() => tensors.length, 1 << 30)
