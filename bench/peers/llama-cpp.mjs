// node llama-cpp.mjs <node_modules> <threads> <folder>: the same files in llama.cpp, by node-llama-cpp's interface.
import { mkdirSync, readFileSync, symlinkSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'
import { prompts, timedGreedy } from './greedy.mjs'

const [modules, threadsText, folder] = process.argv.slice(2)
const threads = Number(threadsText)
const isa = process.env.VOXTORCH_BENCH_ISA

/** Select the last of its per-processor libraries that does not exceed the level; by default it takes the best that runs. */
const LIBRARIES = { avx2: 'haswell', avx512: 'zen4', amx: 'sapphirerapids' }

/** Its addon loads the best library of a folder: it is given a folder with one. */
function hold() {
  if (LIBRARIES[isa] === undefined) return
  const binaries = join(modules, '@node-llama-cpp/linux-x64/bins/linux-x64')
  const own = join(folder, `llama-cpp-${isa}`)
  mkdirSync(own)
  const name = `libggml-cpu-${LIBRARIES[isa]}.so`
  symlinkSync(join(binaries, name), join(own, name))
  const { extensions } = createRequire(import.meta.url)
  const load = extensions['.node']
  extensions['.node'] = (module, path) => {
    load(module, path)
    if (!path.endsWith('llama-addon.node')) return
    const addon = module.exports
    module.exports = Object.create(addon, { loadBackends: { value: () => addon.loadBackends(own) } })
  }
}

hold()
const { getLlama, LlamaLogLevel } = await import(pathToFileURL(join(modules, 'node-llama-cpp/dist/index.js')).href)
const llama = await getLlama({ build: 'never', gpu: false, logLevel: LlamaLogLevel.error, maxThreads: threads })

const contexts = new Map()

async function sequences(file, rows) {
  const key = `${file} ${rows}`
  if (!contexts.has(key)) {
    const model = await llama.loadModel({ modelPath: file, gpuLayers: 0 })
    const context = await model.createContext({
      contextSize: 256,
      sequences: rows,
      threads: { ideal: threads, min: threads },
    })
    contexts.set(key, { model, all: Array.from({ length: rows }, () => context.getSequence()) })
  }
  return contexts.get(key)
}

async function greedy({ file, rows, words, count }) {
  const { all } = await sequences(file, rows)
  for (const sequence of all) await sequence.clearHistory()
  const texts = prompts(rows, words)
  return timedGreedy(count, async function* () {
    const steps = all.map((sequence, row) => sequence.evaluate(texts[row], { temperature: 0, yieldEogToken: true }))
    for (let i = 0; i < count; i++) {
      const made = await Promise.all(steps.map((step) => step.next()))
      yield made.map(({ value }) => value)
    }
    await Promise.all(steps.map((step) => step.return()))
  })
}

const used = llama.systemInfo.match(/\w+ = 1/g).map((one) => one.split(' ')[0])
console.log(
  JSON.stringify({
    'node-llama-cpp': JSON.parse(readFileSync(join(modules, 'node-llama-cpp/package.json'), 'utf8')).version,
    'llama.cpp': llama.llamaCppRelease.release,
    'llama.cpp_threads': threadsText,
    'llama.cpp_instructions': used.join(' '),
  }),
)
for await (const line of createInterface({ input: process.stdin })) {
  try {
    console.log(JSON.stringify(await greedy(JSON.parse(line))))
  } catch (error) {
    console.log(JSON.stringify({ error: error.stack ?? String(error) }))
  }
}
process.exit(0) // its threads wait for work
