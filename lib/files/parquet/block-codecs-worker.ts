import { parentPort, workerData } from 'node:worker_threads'
import { type BlockCodec, decompressed } from './block-codecs.js'

const { codec, bytes, size } = workerData as { codec: BlockCodec; bytes: Uint8Array; size: number }
const result = await decompressed(codec, bytes, size)
// The result may be a view of a larger memory, which cannot be sent.
const own = result.byteLength === result.buffer.byteLength ? result : result.slice()
parentPort?.postMessage(own, [own.buffer as ArrayBuffer])
