// The same GGUF files of SmolLM2-135M-Instruct in llama.cpp and here; after `npm run build` and
// `npx voxtorch weights smollm2-135m-instruct`:
//
//     node test/reference/llama_cpp_check.mjs [--prompts 20] [--logits 20] MODULES FOLDER TYPE ...
//
// MODULES: the node_modules that have node-llama-cpp. FOLDER: where the files go. TYPE: F32, F16, BF16, Q8_0, Q4_0, as saveGguf
// writes them; those that are there are taken. Of 20 prompts: how many give the same 64 greedy tokens; and of the first --logits of them what the two likeliest
// differ by where they part, and all logits of both programs on the same tokens, a token at a time as in decoding, each also
// against the file's values computed in float32. llama.cpp has its keys and values in float32. VOXTORCH_BENCH_ISA=avx2 takes its library without AMX.
import { existsSync, mkdirSync, symlinkSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import { DecoderLM, KvCache, noGrad, scope, Tokenizer, tensor } from 'voxtorch'

const NAME = 'smollm2-135m-instruct'
const TOKENS = 64
const PROMPTS = [
  'The capital of France is',
  'Once upon a time',
  'def fibonacci(n):',
  'Speech emotion recognition is',
  'In 1969, humans',
  'The quick brown fox',
  '2 + 2 =',
  'Water boils at',
  'My favourite book',
  'A recipe for bread:',
  'The largest planet',
  'Dear Sir or Madam,',
  'import numpy as np\n',
  'Der Hund läuft',
  'She said: "I',
  'The meaning of life',
  'To be or not to be',
  'HTML stands for',
  'Q: What is a whale?\nA:',
  'The 3 primary colours are',
]
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { prompts: { type: 'string', default: '20' }, logits: { type: 'string', default: '20' } },
})
const [modules, folder, ...types] = positionals

/** As bench/peers/llama-cpp.mjs does: its addon is given a folder with one library. */
function hold() {
  const name = { avx2: 'haswell', avx512: 'zen4' }[process.env.VOXTORCH_BENCH_ISA]
  if (name === undefined) return
  const own = join(folder, `llama-cpp-${name}`)
  mkdirSync(own, { recursive: true })
  const library = `libggml-cpu-${name}.so`
  if (!existsSync(join(own, library)))
    symlinkSync(join(modules, '@node-llama-cpp/linux-x64/bins/linux-x64', library), join(own, library))
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
const llama = await getLlama({ build: 'never', gpu: false, logLevel: LlamaLogLevel.error, maxThreads: 2 })
const tokenizer = await Tokenizer.fromPretrained(NAME)
const prompts = PROMPTS.slice(0, Number(values.prompts)).map((prompt) => tokenizer.encode(prompt).inputIds)

const greedy = (model, ids) =>
  noGrad(() =>
    scope(async () => {
      const asked = { maxNewTokens: TOKENS, doSample: false, eosTokenId: null }
      const made = await model.generate({ inputIds: tensor([ids.map(BigInt)]) }, asked)
      return Array.from(made.tokens[0], Number)
    }),
  )

/** The logits behind the prompt, and behind each of the tokens. */
const logitsOf = (model, ids, tokens) =>
  noGrad(() =>
    scope(async () => {
      const cache = new KvCache()
      const rows = []
      for (const some of [ids, ...tokens.slice(0, -1).map((token) => [token])]) {
        const { logits } = await model.forward({ inputIds: tensor([some.map(BigInt)]), cache })
        rows.push(Float32Array.from(logits.select(0, 0).select(0, -1).float().toArray()))
      }
      cache.dispose()
      return rows
    }),
  )

async function theirs(file) {
  const model = await llama.loadModel({ modelPath: file, gpuLayers: 0 })
  const kept = { experimentalKvCacheKeyType: 'F32', experimentalKvCacheValueType: 'F32' }
  const context = await model.createContext({ contextSize: 256, threads: 2, flashAttention: false, ...kept })
  const sequence = context.getSequence()
  return {
    async greedy(ids) {
      await sequence.clearHistory()
      const made = []
      for await (const token of sequence.evaluate(ids, { temperature: 0, yieldEogToken: true })) {
        if (made.push(token) === TOKENS) break
      }
      return made
    },
    async logits(ids, tokens) {
      await sequence.clearHistory()
      const rows = []
      for (const some of [ids, ...tokens.slice(0, -1).map((token) => [token])]) {
        const input = [...some.slice(0, -1), [some.at(-1), { generateNext: { logits: true } }]]
        const found = (await sequence.controlledEvaluate(input)).at(-1).next.logits
        const row = new Float32Array(found.size)
        for (const [token, value] of found) row[token] = value
        rows.push(row)
      }
      return rows
    },
    dispose: () => model.dispose(),
  }
}

const best = (row) => row.reduce((most, value, i) => (value > row[most] ? i : most), 0)
const margin = (row) => {
  const [first, second] = [...row].sort((a, b) => b - a)
  return first - second
}
const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]

/** Root mean square of the difference of two rows, less its mean, which changes no probability. */
function distance(a, b) {
  const mean = a.reduce((sum, value, i) => sum + value - b[i], 0) / a.length
  return Math.sqrt(a.reduce((sum, value, i) => sum + (value - b[i] - mean) ** 2, 0) / a.length)
}
const largest = (a, b) => a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0)

mkdirSync(folder, { recursive: true })
const base = await DecoderLM.fromPretrained(NAME, { quantize: false })
for (const type of types) {
  const file = join(folder, `${NAME}-${type}.gguf`)
  if (!existsSync(file)) await base.saveGguf(file, { tokenizer, type })
  const dtype = type === 'BF16' ? 'bfloat16' : 'float32'
  const [ours, exact, peer] = [
    await DecoderLM.fromPretrained(file, { dtype }),
    await DecoderLM.fromPretrained(file, { quantize: false }),
    await theirs(file),
  ]
  const sums = { between: [], ours: [], theirs: [], first: [], most: [], size: [] }
  const parted = []
  let [same, others, exactOthers, count] = [0, 0, 0, 0]
  for (const [number, ids] of prompts.entries()) {
    const [mine, its] = [await greedy(ours, ids), await peer.greedy(ids)]
    const at = mine.findIndex((token, i) => token !== its[i])
    if (at < 0) same += 1
    else if (number >= Number(values.logits)) parted.push({ at })
    if (number >= Number(values.logits)) continue
    const [a, b, c] = [await logitsOf(ours, ids, mine), await peer.logits(ids, mine), await logitsOf(exact, ids, mine)]
    if (at >= 0) parted.push({ at, ours: margin(a[at]), exact: margin(c[at]), swapped: its[at] === best(b[at]) })
    for (const [i, row] of a.entries()) {
      sums.between.push(distance(row, b[i]))
      sums.ours.push(distance(row, c[i]))
      sums.theirs.push(distance(b[i], c[i]))
      if (i === 0) sums.first.push(distance(row, b[i]))
      sums.most.push(largest(row, b[i]))
      sums.size.push(distance(c[i], new Float32Array(row.length)))
      count += 1
      if (best(row) !== best(b[i])) others += 1
      if (best(row) !== best(c[i])) exactOthers += 1
    }
  }
  const told = Object.fromEntries(Object.entries(sums).map(([name, all]) => [name, Number(median(all).toPrecision(3))]))
  console.log(`${type}: ${same} of ${prompts.length} prompts give the same ${TOKENS} tokens`)
  console.log(`  likeliest token differs at ${others} of ${count} places, from the exact one's at ${exactOthers}`)
  console.log('  medians of rms differences of logits', told, 'largest of all', Math.max(...sums.most).toPrecision(3))
  for (const { at, ours: own, exact: real, swapped } of parted) {
    if (own === undefined) {
      console.log(`  parts at token ${at}`)
      continue
    }
    const note = swapped ? '' : ' (llama.cpp, given our tokens, writes ours here)'
    console.log(`  parts at token ${at}: two likeliest ${own.toFixed(4)} apart here, ${real.toFixed(4)} exactly${note}`)
  }
  ours.dispose()
  exact.dispose()
  await peer.dispose()
}
process.exit(0) // llama.cpp's threads wait for work
