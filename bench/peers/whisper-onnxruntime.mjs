// node whisper-onnxruntime.mjs <node_modules> <folder> <threads>: the encoder that whisper.py exported, in onnxruntime-node.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { timedBlocks } from './serve.mjs'

const [modules, folder, threads] = process.argv.slice(2)
const { InferenceSession, Tensor, env } = createRequire(join(resolve(modules), 'here.js'))('onnxruntime-node')

const read = (name) => {
  const bytes = readFileSync(join(folder, name))
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4)
}

const session = await InferenceSession.create(join(folder, 'encoder.onnx'), {
  intraOpNumThreads: Number(threads),
  interOpNumThreads: 1,
  graphOptimizationLevel: 'all',
})
const features = new Tensor('float32', read('features.f32'), [1, 80, 3000])
const encode = async () => (await session.run({ features })).states

function differenceFrom(states) {
  let [most, largest] = [0, 0]
  for (const [i, expected] of read('encoder.f32').entries()) {
    most = Math.max(most, Math.abs(states[i] - expected))
    largest = Math.max(largest, Math.abs(expected))
  }
  return most / largest
}

const difference = differenceFrom((await encode()).data)
console.log(JSON.stringify({ onnxruntime: env.versions.node, onnxruntime_threads: threads, difference }))

const answer = timedBlocks({
  encoder: async (n) => {
    for (let i = 0; i < n; i++) (await encode()).dispose()
  },
})
for await (const line of createInterface({ input: process.stdin })) {
  try {
    console.log(JSON.stringify(await answer(JSON.parse(line))))
  } catch (error) {
    console.log(JSON.stringify({ error: error.stack ?? String(error) }))
  }
}
