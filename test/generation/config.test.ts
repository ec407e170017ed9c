import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { readGenerationConfig } from '../../lib/generation/files.js'
import {
  CheckpointError,
  ConfigError,
  DecoderLM,
  type GenerateStep,
  generationConfig,
  streamText,
  Tokenizer,
  tensor,
} from '../../lib/index.js'
import { published } from '../text/helpers.js'
import { network } from './networks.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-generation-'))
afterAll(() => rmSync(folder, { recursive: true }))

describe('generationConfig', () => {
  it('fills up what is left out', () => {
    const base = { eosTokenId: 2, maxNewTokens: 30, temperature: 0.7 }
    expect(generationConfig({ temperature: null, topK: 5 }, base)).toEqual({ ...base, temperature: null, topK: 5 })
    expect(generationConfig({ maxLength: 9 }, base)).toEqual({ eosTokenId: 2, temperature: 0.7, maxLength: 9 })
  })

  it.each([
    [{ topk: 3 }, /got 'topk'; did you mean 'topK'/],
    [{ numBeam: 3 }, /did you mean 'numBeams'/],
    [{ temperature: 0 }, /generation\.temperature: expected a number above 0, got 0\./],
    [{ topP: 1.5 }, /topP: expected a number from 0 to 1/],
    [{ numBeams: 0 }, /numBeams: expected an integer from 1 to 16384, got 0/],
    [{ eosTokenId: -1 }, /eosTokenId: expected a token id/],
    [{ badWordsIds: [3] }, /badWordsIds: expected a list of lists/],
    [{ badWordsIds: [[]] }, /badWordsIds: expected sequences of at least one token/],
    [{ sequenceBias: [[[3], 'much']] }, /sequenceBias/],
    [{ earlyStopping: 'always' }, /earlyStopping/],
    [{ prefixAllowedTokensFn: [1] }, /expected a function/],
    [{ numReturnSequences: 2 }, /expected doSample or beams with numReturnSequences 2/],
    [{ numBeams: 2, numReturnSequences: 3 }, /expected numReturnSequences of at most numBeams, 2, got 3/],
    [{ allowedSequences: [[1]] }, /expected an eosTokenId with allowedSequences/],
    [{ allowedTokens: [] }, /allowedTokens: expected at least one token, got an array of length 0/],
  ])('refuses %j', (config, message) => {
    expect(() => generationConfig(config as never)).toThrow(ConfigError)
    expect(() => generationConfig(config as never)).toThrow(message)
  })
})

describe('generation_config.json', () => {
  const write = (value: unknown) => writeFileSync(join(folder, 'generation_config.json'), JSON.stringify(value))

  it('goes before config.json, and keys of other programs are left out', async () => {
    write({
      eos_token_id: [3, 4],
      temperature: 0.6,
      top_p: null,
      pad_token_id: -1,
      transformers_version: '5',
      alignment_heads: [],
    })
    const network = { modelType: 'whisper', eosTokenId: 2, bosTokenId: 1, padTokenId: -1 }
    expect(await readGenerationConfig(folder, network)).toEqual({ eosTokenId: [3, 4], temperature: 0.6, bosTokenId: 1 })
    expect(await readGenerationConfig(join(folder, 'none'), network)).toEqual({ eosTokenId: 2, bosTokenId: 1 })
  })

  it('that asks for what is not done is refused', async () => {
    write({ num_beam_groups: 2 })
    await expect(readGenerationConfig(folder)).rejects.toThrow(
      /generation_config\.json: num_beam_groups: expected null or 1, got 2\. .*remove the key/,
    )
    write({ num_beam_groups: 1, penalty_alpha: null })
    expect(await readGenerationConfig(folder)).toEqual({})
    write([1])
    await expect(readGenerationConfig(folder)).rejects.toThrow(CheckpointError)
  })

  it('is saved with the network', async () => {
    const model = network('llama')
    model.generationConfig = { eosTokenId: [5, 6], doSample: true, topK: 3, sequenceBias: [[[1, 2], -1]] }
    await model.save(folder)
    const read = await DecoderLM.fromPretrained(folder)
    expect(read.generationConfig).toMatchObject(model.generationConfig)
    model.generationConfig = { eosTokenId: 9, maxNewTokens: 3 }
    const { tokens } = await model.generate({ inputIds: tensor([[2, 3]]) })
    expect(tokens[0]?.length).toBeLessThanOrEqual(3)
    model.generationConfig = {}
  })
})

describe('streamText', () => {
  async function* steps(rows: (number | null)[][]): AsyncGenerator<GenerateStep> {
    for (const [step, tokens] of rows.entries()) {
      const ended = (row: number) => rows[step + 1]?.[row] === undefined || rows[step + 1]?.[row] === null
      yield { step, tokens, finishReasons: tokens.map((_, row) => (ended(row) ? 'eos' : null)) }
    }
  }

  it('gives whole characters, and leaves out special tokens', async () => {
    const tokenizer = await Tokenizer.fromFile(published['mistral-json'])
    const ids = ['<0xF0>', '<0x9F>', '<0xA6>', '<0x84>', '▁a', '</s>'].map(
      (token) => tokenizer.tokenToId(token) as number,
    )
    const parts: string[] = []
    for await (const text of streamText(tokenizer, steps(ids.map((id) => [7, id])), { row: 1 })) parts.push(text)
    expect(parts).toEqual(['🦄', ' a'])
    const cut: string[] = []
    for await (const text of streamText(tokenizer, steps(ids.slice(0, 2).map((id) => [id])))) cut.push(text)
    expect(cut.join('')).toMatch(/^\ufffd+$/)
    const none = streamText(tokenizer, steps([[1]]), { row: 3 })
    await expect(none.next()).rejects.toThrow(/row: expected an index below 1, got 3/)
  })
})
