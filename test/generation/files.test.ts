import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it, vi } from 'vitest'
import { camelCase, toCamel } from '../../lib/base/words.js'
import { readGenerationConfig } from '../../lib/generation/files.js'
import { kinds } from '../../lib/generation/keys.js'
import { ConfigError, generationConfig, setNumThreads } from '../../lib/index.js'
import { fixturePath } from '../helpers.js'
import { inputsOf, network } from './networks.js'

setNumThreads(1)
const directory = mkdtempSync(join(tmpdir(), 'voxtorch-generation-files-'))
afterAll(() => rmSync(directory, { recursive: true }))
const json = (name: string) => JSON.parse(readFileSync(fixturePath(name), 'utf8'))
const write = (folder: string, value: object) =>
  writeFileSync(join(folder, 'generation_config.json'), JSON.stringify(value))
const warningsOf = async (run: () => Promise<unknown>): Promise<string[]> => {
  const emit = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
  try {
    await run()
    return emit.mock.calls.map(([message]) => String(message))
  } finally {
    emit.mockRestore()
  }
}

/** A value that asks for something: none of transformers' defaults, nor of its kind's neutral values. */
function strange(key: string): unknown {
  const values: unknown[] = [2, 0.5, true, [3], [[3]], [[[3], 0.5]], [2, 1.5], 'never']
  const kind = kinds[key as keyof typeof kinds]
  return kind ? values.find((value) => kind.test(value)) : 7
}

describe("every key of transformers' GenerationConfig", () => {
  /** Keys that change nothing here: memory, compilation, versions, what generate returns, encoder-decoders. */
  const NO_EFFECT = new Set([
    '_from_model_config',
    'assistant_lookbehind',
    'cache_config',
    'cache_implementation',
    'compile_config',
    'continuous_batching_config',
    'decoder_start_token_id',
    'disable_compile',
    'is_assistant',
    'low_memory',
    'max_cache_len',
    'num_assistant_tokens_schedule',
    'output_attentions',
    'output_hidden_states',
    'prefill_chunk_size',
    'return_dict_in_generate',
    'target_lookbehind',
    'transformers_version',
    'use_cache',
  ])

  it.each(json('models/generation-keys.json') as string[])(
    '%s is used, refused by name, or of no effect',
    async (key) => {
      const value = strange(camelCase(key))
      const folder = mkdtempSync(join(directory, 'key-'))
      // What some values need beside them.
      write(folder, { do_sample: true, num_beams: 4, eos_token_id: 2, no_timestamps_token_id: 9, [key]: value })
      let read: object | undefined
      let error: unknown
      const warnings = await warningsOf(async () => {
        read = await readGenerationConfig(folder).catch((reason: unknown) => void (error = reason))
      })
      if (NO_EFFECT.has(key)) return expect([error, warnings]).toEqual([undefined, []])
      if (read) return expect(read).toMatchObject({ [camelCase(key)]: value })
      expect(error).toBeInstanceOf(ConfigError)
      expect(String(error)).toContain(`generation_config.json: ${key}: expected`)
    },
  )

  it('names other keys in one warning, with what was probably meant', async () => {
    const folder = mkdtempSync(join(directory, 'unknown-'))
    write(folder, { num_beam: 3, [`x${'y'.repeat(1e5)}`]: 1, eos_token_id: 3 })
    const warnings = await warningsOf(async () => {
      expect(await readGenerationConfig(folder)).toEqual({ eosTokenId: 3 })
    })
    expect(warnings.length).toBe(1)
    expect(warnings[0]).toMatch(/generation_config\.json: ignored unknown keys: .*"num_beam"; did you mean 'num_beams'/)
    expect(warnings[0]?.length).toBeLessThan(1000)
    write(folder, Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`no_such_key_${i}`, 1])))
    expect((await warningsOf(() => readGenerationConfig(folder)))[0]).toMatch(/and 42 more$/)
  })

  it('names the settings that transformers will not follow when it saves them', async () => {
    const model = network('llama')
    model.generationConfig = { eosTokenId: 5, stopSequences: [[3, 4]], outputLogprobs: true }
    const warnings = await warningsOf(() => model.save(join(directory, 'ours')))
    model.generationConfig = {}
    expect(warnings).toEqual([expect.stringContaining('transformers does not support stopSequences, outputLogprobs')])
    expect(toCamel(JSON.parse(readFileSync(join(directory, 'ours/generation_config.json'), 'utf8')))).toEqual({
      eosTokenId: 5,
      stopSequences: [[3, 4]],
      outputLogprobs: true,
    })
  })

  it('writes as floats what transformers refuses as integers', async () => {
    const model = network('llama')
    const own = { eosTokenId: 5, temperature: 1, repetitionPenalty: 2, lengthPenalty: 0.5 }
    model.generationConfig = { ...own, sequenceBias: [[[6], 4]], exponentialDecayLengthPenalty: [3, 2] }
    await model.save(join(directory, 'floats'))
    model.generationConfig = {}
    const text = readFileSync(join(directory, 'floats/generation_config.json'), 'utf8').replace(/\s+/g, '')
    for (const written of ['"temperature":1.0', '"repetition_penalty":2.0', '[[[6],4.0]]', '[3,2.0]']) {
      expect(text).toContain(written)
    }
    expect(text).toContain('"length_penalty":0.5')
    expect(text).toContain('"eos_token_id":5,')
  })
})

describe('bounds', () => {
  const folder = mkdtempSync(join(directory, 'bounds-'))
  it.each([
    ['num_beams', 1e6],
    ['num_return_sequences', 1e6],
    ['num_beams', 257],
    ['num_assistant_tokens', 1e9],
    ['prompt_lookup_num_tokens', 1e9],
    ['max_matching_ngram_size', 1e9],
  ])('%s of %d in a file is refused by file and key', async (key, value) => {
    write(folder, { [key]: value })
    await expect(readGenerationConfig(folder)).rejects.toThrow(ConfigError)
    await expect(readGenerationConfig(folder)).rejects.toThrow(
      new RegExp(`generation_config\\.json: ${key}: expected an integer from 1 to \\d+, got ${value}`),
    )
  })

  it.each(['numBeams', 'numReturnSequences'])('%s of a caller', (key) => {
    expect(() => generationConfig({ doSample: true, numBeams: 16384, [key]: 1e6 })).toThrow(
      new RegExp(`generation\\.${key}: expected an integer from 1 to 16384, got 1000000`),
    )
  })

  it('rows that need more memory than there is are refused before anything is computed', async () => {
    const available = vi.spyOn(process, 'availableMemory').mockReturnValue(1e5)
    try {
      await expect(network('llama').generate(inputsOf(0, 1), { numBeams: 4000, maxNewTokens: 1000 })).rejects.toThrow(
        /generate: expected rows that fit into 100000 bytes of memory, got 4000 of \d+ tokens/,
      )
    } finally {
      available.mockRestore()
    }
  })

  it('a limit of new tokens takes no memory before they come, with padding too', async () => {
    const { inputIds, attentionMask } = inputsOf(0, 8)
    const options = { maxNewTokensPerRow: Array<number>(8).fill(2) }
    const settings = { maxNewTokens: 2 ** 40, eosTokenId: null, padTokenId: 1 }
    const { tokens } = await network('llama').generate({ inputIds, attentionMask }, settings, options)
    const short = await network('llama').generate({ inputIds, attentionMask }, { ...settings, maxNewTokens: 2 })
    expect(tokens).toEqual(short.tokens)
  })
})
