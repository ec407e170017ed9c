import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { afterAll, describe, expect, it, vi } from 'vitest'
import type { GgufValue } from '../../lib/files/index.js'
import { saveGguf } from '../../lib/files/index.js'
import { Tokenizer } from '../../lib/index.js'
import { ggufCheckpoint, SAMPLING } from '../../lib/models/decoder/gguf.js'
import { readProto } from '../../lib/text/sentencepiece/proto.js'
import { fixturePath } from '../helpers.js'
import { get } from './decoder.js'

// Every key that Python's gguf knows is read, refused by name, reported by name, or of no effect.

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-gguf-keys-'))
afterAll(() => rmSync(folder, { recursive: true }))
const path = join(folder, 'file.gguf')
const KEYS = JSON.parse(readFileSync(fixturePath('files/gguf-keys.json'), 'utf8')) as string[]

type Metadata = Record<string, GgufValue>
interface Outcome {
  read?: string
  error?: string
  warnings: string[]
}

async function outcome(metadata: Metadata, read: () => Promise<unknown>): Promise<Outcome> {
  await saveGguf(path, {}, { metadata })
  const emit = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
  try {
    const result = await read().then(
      (value) => ({ read: JSON.stringify(value) }),
      (error: Error) => ({ error: error.message }),
    )
    return { ...result, warnings: emit.mock.calls.map(([message]) => String(message)) }
  } finally {
    emit.mockRestore()
  }
}

/** A value that asks for something. */
function strange(key: string): GgufValue {
  if (/causal$/.test(key)) return false
  if (/(add_\w+|remove_extra_whitespaces|parallel_residual|swin_norm|weights_norm|finetuned|dt_b_c_rms)$/.test(key)) {
    return true
  }
  if (/(tensor_data_layout|general\.type|scaling\.type|ggml\.pre|ggml\.model)$/.test(key)) return 'strange'
  if (/(huggingface\.json|rwkv\.world|chat_template(\.x)?)$/.test(key)) return 'strange'
  if (/(probability|threshold|top_p|min_p|temp)$/.test(key)) return 0.25
  if (/chat_templates$/.test(key)) return ['x']
  if (/charsmap$/.test(key)) return Uint8Array.of(1, 2, 3)
  return 6
}

const told = ({ error, warnings }: Outcome, key: string): boolean =>
  (error ?? '').includes(key.slice(key.lastIndexOf('.') + 1)) ||
  warnings.some((warning) => warning.includes(`"${key}"`))

describe.each([
  'llama',
  'mistral3',
  'qwen2',
  'qwen3',
  'qwen3moe',
  'olmo2',
  'smollm3',
  'granite',
  'gemma2',
  'gemma3',
  'internlm2',
  'phi3',
])('of a network, %s', (architecture) => {
  const base = (key: string): Metadata => {
    const own: Metadata = {
      vocab_size: 40,
      context_length: 64,
      embedding_length: 32,
      block_count: 2,
      feed_forward_length: 48,
      'attention.head_count': 4,
      'attention.layer_norm_rms_epsilon': 1e-5,
    }
    const experts = { expert_count: 4, expert_used_count: 2 }
    if (architecture === 'qwen3moe') Object.assign(own, experts, { expert_feed_forward_length: 8 })
    if (key === 'llama.expert_count') Object.assign(own, experts)
    // Most keys of a scaling count with yarn alone.
    if (key.includes('.rope.scaling.')) Object.assign(own, { 'rope.scaling.type': 'yarn', 'rope.scaling.factor': 2 })
    return Object.fromEntries([
      ['general.architecture', architecture],
      ...Object.entries(own).map(([name, value]) => [`${architecture}.${name}`, value] as const),
    ])
  }
  /** Who made the file and how; what the reader of files checks; what a tokenizer reads. */
  const noEffect = (key: string): boolean =>
    /^(general\.(?!type|alignment|sampling|architecture|quantization)|imatrix\.|tokenizer\.)/.test(key) ||
    /^split\.(no|tensors\.count)$|\.rope\.scaling\.finetuned$/.test(key)
  const read = async () => {
    const config = get(await ggufCheckpoint(path)).config
    return [config, Reflect.get(config, SAMPLING)]
  }
  // saveGguf writes an alignment of its own.
  const keys = KEYS.filter((key) => key !== 'general.alignment').map((key) =>
    key.replace('{arch}', architecture).replace('{dense}', 'dense_2').replace('{id}', '0').replace('{name}', 'x'),
  )

  // One test for all keys: a test for each of thousands takes longer than what it checks.
  it('reads, refuses or reports each key', async () => {
    /** What files without the key are read as, by their text. */
    const without = new Map<string, Outcome>()
    for (const key of keys) {
      const plain = JSON.stringify(base(key))
      const before = without.get(plain) ?? (await outcome(base(key), read))
      without.set(plain, before)
      expect(before.error, key).toBeUndefined()
      const after = await outcome({ ...base(key), [key]: strange(key) }, read)
      const isUsed = after.read !== undefined && after.read !== before.read
      if (/^tokenizer\.ggml\.(bos|eos|eot|eom|padding)_token_id$/.test(key)) expect(isUsed, key).toBe(true)
      else if (noEffect(key)) expect([after.read, after.warnings], key).toEqual([before.read, []])
      else expect(isUsed || told(after, key), `${key}: ${JSON.stringify(after)}`).toBe(true)
    }
  })

  it('scalings as llama.cpp reads them', async () => {
    const scaling = async (more: Record<string, GgufValue>) => {
      const own = Object.entries(more).map(([name, value]) => [`${architecture}.rope.${name}`, value] as const)
      const { read: text, error } = await outcome({ ...base(''), ...Object.fromEntries(own) }, read)
      return error ?? JSON.parse(get(text))[0].ropeScaling
    }
    const linear = { ropeType: 'linear', factor: 4 }
    expect(await scaling({ scale_linear: 4 })).toEqual(linear)
    expect(await scaling({ 'scaling.factor': 4 })).toEqual(linear)
    expect(await scaling({ 'scaling.factor': 4, scale_linear: 8 })).toEqual(linear)
    expect(await scaling({ 'scaling.type': 'linear', scale_linear: 4 })).toEqual(linear)
    expect(await scaling({ 'scaling.type': 'none', 'scaling.factor': 4 })).toBeUndefined()
    expect(await scaling({ scale_linear: 0 })).toBeUndefined()
    expect(await scaling({ 'scaling.type': 'strange' })).toMatch(
      /rope\.scaling\.type: expected linear or yarn, got "strange"/,
    )
  })

  it('ends an answer at each token that llama.cpp ends it at', async () => {
    const ends = {
      'tokenizer.ggml.eos_token_id': 2,
      'tokenizer.ggml.eot_token_id': 5,
      'tokenizer.ggml.eom_token_id': 2,
    }
    const { read: text } = await outcome({ ...base(''), ...ends }, read)
    expect(JSON.parse(get(text))[0].eosTokenId).toEqual([2, 5])
  })

  it('names unknown keys in one warning', async () => {
    const more = Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`${architecture}.no_such_key_${i}`, 1]))
    const { warnings } = await outcome({ ...base(''), ...more }, read)
    expect(warnings).toEqual([expect.stringMatching(/ignored keys: "\w+\.no_such_key_0", .* and 12 more$/)])
  })
})

describe('of a tokenizer', () => {
  const model = join(folder, 'tokenizer.model')
  const bytes = gunzipSync(readFileSync(fixturePath('text/bpe-bytes.model.gz')))
  const proto = readProto(bytes, model)
  const letters = Array.from({ length: 94 }, (_, i) => String.fromCharCode(33 + i))
  const tokens = [...letters, 'Ġ', 'Ċ', 'he', 'Ġhe']
  const BASE: Record<'llama' | 'gpt2', Metadata> = {
    llama: {
      'tokenizer.ggml.model': 'llama',
      'tokenizer.ggml.tokens': proto.pieces,
      'tokenizer.ggml.scores': proto.scores,
      'tokenizer.ggml.token_type': Int32Array.from(proto.types),
      'tokenizer.ggml.unknown_token_id': proto.unkId,
    },
    gpt2: {
      'tokenizer.ggml.model': 'gpt2',
      'tokenizer.ggml.pre': 'gpt-2',
      'tokenizer.ggml.tokens': tokens,
      'tokenizer.ggml.merges': ['h e', 'Ġ he'],
    },
  }
  const read = async () => {
    const tokenizer = await Tokenizer.fromFile(path)
    const { bosTokenId, eosTokenId, unkTokenId, padTokenId, sepTokenId, clsTokenId, maskTokenId, chatTemplate } =
      tokenizer
    const ids = ['he  he', ' a'].map((text) => tokenizer.encode(text).inputIds)
    const special = [bosTokenId, eosTokenId, unkTokenId, padTokenId, sepTokenId, clsTokenId, maskTokenId]
    return [ids, special, chatTemplate, tokenizer.ggufMetadata(Math.max(proto.pieces.length, tokens.length))]
  }
  /** Names of tokens for programs that complete code; lists that the other kind reads. */
  const noEffect = (key: string, kind: string): boolean =>
    /\.(eot|eom|fim_\w+|prefix|suffix|middle)_token_id$|\.chat_templates$/.test(key) ||
    (kind === 'gpt2' ? key === 'tokenizer.ggml.scores' : /\.(merges|pre)$/.test(key))
  const keys = KEYS.filter((key) => key.startsWith('tokenizer.')).map((key) => key.replace('{name}', 'x'))

  const without = new Map<string, Promise<Outcome>>()
  it.each((['llama', 'gpt2'] as const).flatMap((kind) => keys.map((key) => [kind, key] as const)))(
    '%s, %s',
    async (kind, key) => {
      if (!without.has(kind)) without.set(kind, outcome(BASE[kind], read))
      const before = await get(without.get(kind))
      expect(before.error).toBeUndefined()
      // What adds a token needs one.
      const beside: Metadata = /add_(bos|eos)/.test(key)
        ? { 'tokenizer.ggml.bos_token_id': 9, 'tokenizer.ggml.eos_token_id': 9 }
        : {}
      const start = /add_(bos|eos)/.test(key) ? await outcome({ ...BASE[kind], ...beside }, read) : before
      const isOnAlready = /add_(space_prefix|bos_token)$/.test(key) && kind === 'llama'
      const value = isOnAlready ? false : strange(key)
      const after = await outcome({ ...BASE[kind], ...beside, [key]: value }, read)
      if (noEffect(key, kind)) return expect([after.read, after.warnings]).toEqual([start.read, []])
      const isUsed = after.read !== undefined && after.read !== start.read
      expect(isUsed || told(after, key), `${key}: ${JSON.stringify(after).slice(0, 300)}`).toBe(true)
    },
  )

  it('the map of characters of a SentencePiece model is read and written', async () => {
    const bytes = gunzipSync(readFileSync(fixturePath('text/bpe-nfkc.model.gz')))
    const file = join(folder, 'nfkc.model')
    writeFileSync(file, bytes)
    const { pieces, scores, types, normalizer, unkId } = readProto(bytes, file)
    const own = await Tokenizer.fromFile(file)
    const metadata: Metadata = {
      'tokenizer.ggml.model': 'llama',
      'tokenizer.ggml.tokens': pieces,
      'tokenizer.ggml.scores': scores,
      'tokenizer.ggml.token_type': Int32Array.from(types),
      'tokenizer.ggml.unknown_token_id': unkId,
      'tokenizer.ggml.precompiled_charsmap': Uint8Array.from(normalizer.charsmap),
      'tokenizer.ggml.remove_extra_whitespaces': normalizer.removeExtraWhitespaces,
      'tokenizer.ggml.add_bos_token': false,
    }
    expect(normalizer.charsmap.length).toBeGreaterThan(0)
    await saveGguf(path, {}, { metadata })
    const read = await Tokenizer.fromFile(path)
    const samples = ['ﬁne Ａ①', 'Ｈｅｌｌｏ  ｗｏｒｌｄ', ' a  b ']
    for (const text of samples) expect(read.encode(text).inputIds, text).toEqual(own.encode(text).inputIds)
    await saveGguf(path, {}, { metadata: read.ggufMetadata(pieces.length) })
    const again = await Tokenizer.fromFile(path)
    for (const text of samples) expect(again.encode(text).inputIds, text).toEqual(own.encode(text).inputIds)
  })
})
