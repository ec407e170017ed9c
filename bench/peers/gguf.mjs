// A language model out of a GGUF file, here. It also writes the files, for both sides.
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { DecoderLM, manualSeed, noGrad, ops, randn, readGguf, scope, Tokenizer, tensor } from 'voxtorch'
import { prompts, timedGreedy } from './greedy.mjs'
import { rates, repeated } from './rates.mjs'
import { serve, timedBlocks } from './serve.mjs'
import { GEMMA3, LLAMA, QWEN3 } from './weights.mjs'

const RANDOM = { llama: LLAMA, qwen3: QWEN3, gemma3: GEMMA3 }

/** llama.cpp loads no network without a vocabulary: the bytes, and names that mean nothing. */
async function tokenizer(folder, vocabSize) {
  const byte = (i) => String.fromCharCode((i > 32 && i < 127) || (i > 160 && i !== 173) ? i : 256 + i)
  const vocab = Object.fromEntries(
    Array.from({ length: vocabSize }, (_, i) => [i < 256 ? byte(i) : `w${i.toString(36)}`, i]),
  )
  const cutting = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true }
  const model = { type: 'BPE', vocab, merges: [], unk_token: null }
  const rest = { truncation: null, padding: null, normalizer: null, post_processor: null, added_tokens: [] }
  const json = { version: '1.0', ...rest, pre_tokenizer: cutting, decoder: cutting, model }
  await writeFile(join(folder, 'tokenizer.json'), JSON.stringify(json))
  return Tokenizer.fromPretrained(folder)
}

/** Layers larger than at their beginning: with those a network with tied embeddings would say its last word again. */
async function random(folder, config) {
  manualSeed(1)
  const model = DecoderLM.fromConfig(config)
  noGrad(() => {
    for (const [name, parameter] of model.namedParameters()) {
      if (name.includes('layers') && parameter.dim() === 2) parameter.mul_(4)
    }
  })
  return { model, tokenizer: await tokenizer(folder, config.vocabSize) }
}

const published = async (name) => ({
  model: await DecoderLM.fromPretrained(name, { dtype: 'float32', quantize: false }),
  tokenizer: await Tokenizer.fromPretrained(name),
})

async function written({ folder, name, types }) {
  const made = RANDOM[name] ? await random(folder, RANDOM[name]) : await published(name)
  const files = {}
  for (const type of types) {
    files[type] = join(folder, `${name}-${type}.gguf`)
    await made.model.saveGguf(files[type], { tokenizer: made.tokenizer, type })
  }
  made.model.dispose()
  return files
}

/** Return the bytes of a file that a token reads: all, except one row of embeddings that are not also the head. */
async function bytesOf(path) {
  const { tensors } = await readGguf(path)
  const head = tensors['output.weight'] === undefined ? null : 'token_embd.weight'
  return Object.entries(tensors).reduce((sum, [name, { bytes }]) => sum + (name === head ? 0 : bytes), 0)
}

const networks = new Map()

async function network(file, options) {
  const key = JSON.stringify([file, options])
  if (!networks.has(key)) networks.set(key, (await DecoderLM.fromPretrained(file, options)).eval().freeze())
  return networks.get(key)
}

async function greedy({ file, options, rows, count, prompt }) {
  const model = await network(file, options)
  return noGrad(() =>
    scope(async () => {
      const inputIds = tensor(prompts(rows, model.config.vocabSize, prompt).map((row) => row.map(BigInt)))
      return timedGreedy(count, async function* (maxNewTokens) {
        for await (const { tokens } of model.stream({ inputIds }, { maxNewTokens, eosTokenId: null })) yield tokens
      })
    }),
  )
}

const large = randn([7168, 7168])
const long = randn([7168])

const blocks = timedBlocks({
  ...rates,
  bandwidth: repeated(() => ops.async.matmul(large, long)),
})

await serve(async (request) => {
  if (request.write !== undefined) return { files: await written(request.write) }
  if (request.bytes !== undefined) return { bytes: await bytesOf(request.bytes) }
  if (request.file === undefined) return blocks(request)
  // As llama-bench does, which starts anew for each measurement.
  if (request.warms) await greedy({ ...request, count: 2 })
  return greedy(request)
})
