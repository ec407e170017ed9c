// node encoders-onnxruntime.mjs <node_modules> <folder> <threads>: what encoders.py exported, in onnxruntime-node.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { timedBlocks } from './serve.mjs'

const [modules, folder, threads] = process.argv.slice(2)
const { InferenceSession, Tensor, env } = createRequire(join(resolve(modules), 'here.js'))('onnxruntime-node')

const bytes = (name) => new Uint8Array(readFileSync(join(folder, name))).buffer
const INPUTS = {
  roberta: () => new Tensor('int64', new BigInt64Array(bytes('roberta.in')), [8, 128]),
  wavlm: () => new Tensor('float32', new Float32Array(bytes('wavlm.in')), [1, 160_000]),
}
const sessions = new Map()

async function encode(name) {
  if (!sessions.has(name)) {
    const options = { intraOpNumThreads: Number(threads), interOpNumThreads: 1, graphOptimizationLevel: 'all' }
    const session = await InferenceSession.create(join(folder, `${name}.onnx`), options)
    sessions.set(name, { session, inputs: INPUTS[name]() })
  }
  const { session, inputs } = sessions.get(name)
  return (await session.run({ inputs })).states
}

async function differenceOf(name) {
  const states = (await encode(name)).data
  let [most, largest] = [0, 0]
  for (const [i, expected] of new Float32Array(bytes(`${name}.out`)).entries()) {
    most = Math.max(most, Math.abs(states[i] - expected))
    largest = Math.max(largest, Math.abs(expected))
  }
  return most / largest
}

const blocks = timedBlocks(
  Object.fromEntries(
    Object.keys(INPUTS).map((name) => [
      name,
      async (n) => {
        for (let i = 0; i < n; i++) (await encode(name)).dispose()
      },
    ]),
  ),
)

console.log(JSON.stringify({ onnxruntime: env.versions.node, onnxruntime_threads: threads }))
for await (const line of createInterface({ input: process.stdin })) {
  try {
    const request = JSON.parse(line)
    const name = request.agree
    console.log(
      JSON.stringify(
        name === undefined ? await blocks(request) : { differences: { [name]: await differenceOf(name) } },
      ),
    )
  } catch (error) {
    console.log(JSON.stringify({ error: error.stack ?? String(error) }))
  }
}
