import { parentPort, workerData } from 'node:worker_threads'
import { type BlockCodec, decompressed } from './block-codecs.js'

/** Answer of the thread. */
export type Unpacked = { bytes: Uint8Array } | { error: string }

const { codec, bytes, size } = workerData as { codec: BlockCodec; bytes: Uint8Array; size: number }
const answer = (unpacked: Unpacked, moved: ArrayBuffer[]) => parentPort?.postMessage(unpacked, moved)
try {
  const result = await decompressed(codec, bytes, size)
  // The result may be a view of a larger memory, which cannot be sent.
  const own = result.byteLength === result.buffer.byteLength ? result : result.slice()
  answer({ bytes: own }, [own.buffer as ArrayBuffer])
} catch (error) {
  answer({ error: (error as Error).message }, [])
}
