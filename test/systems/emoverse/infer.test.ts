import {
  appendFileSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import { ConfigError, DataError, noGrad, scope, type Tensor, tensor, writeWav } from '../../../lib/index.js'
import {
  EMOTION_LABELS,
  EmoVerse,
  emoverseCollate,
  emoverseLoss,
  emoverseScoresPage,
  inferEmoVerse,
  readEmoVerseStage,
  scoreEmoVerse,
  writeSwiftDataset,
} from '../../../lib/systems/emoverse/index.js'
import { settledTensors } from '../../helpers.js'
import { asked, hearingEmoVerse, ppm, tinyEmoVerse, voice } from './tiny.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-emoverse-infer-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const linesOf = (file: string) =>
  readFileSync(file, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))

describe('inferEmoVerse', () => {
  const records = [
    { ...asked(1)[0], query: "<image>'a' <sentiment>", images: ['a.png'], history: [['x', 'y']] as [string, string][] },
    ...asked(40),
    { query: "'q' <emotion>", response: null, system: 'Own.' },
  ] as Parameters<typeof writeSwiftDataset>[1] & object[]

  it('writes a line for each record in their order, with the keys of ms-swift', async () => {
    using model = await tinyEmoVerse({ system: 'S' })
    const data = join(folder, 'data.json')
    await writeSwiftDataset(data, records as never)
    const output = join(folder, 'whole.jsonl')
    const progress: number[] = []
    const options = {
      data,
      output,
      maxNewTokens: 4,
      batchSize: 3,
      onProgress: (done: number) => void progress.push(done),
    }
    expect(await inferEmoVerse(model, options)).toEqual({ file: output, records: 42, continued: 0, notes: [] })
    expect(progress).toEqual([12, 24, 36, 42])
    const lines = linesOf(output)
    expect(Object.keys(lines[0])).toEqual(['system', 'query', 'response', 'label', 'history', 'images'])
    expect(lines[0]).toMatchObject({
      system: 'S',
      query: "<image>'a' <sentiment>",
      history: [['x', 'y']],
      images: ['a.png'],
    })
    expect(lines.at(-1)).toMatchObject({ system: 'Own.', label: null, history: [] })
    expect(lines.map(({ query }) => query)).toEqual((records as { query: string }[]).map(({ query }) => query))
  })

  it('goes on where it stopped, in a file and in a folder, and not with other data', async () => {
    using model = await tinyEmoVerse({ system: 'S' })
    const [data, whole] = [join(folder, 'data.json'), readFileSync(join(folder, 'whole.jsonl'), 'utf8')]
    const cut = join(folder, 'cut.jsonl')
    const ends = whole.split('\n')
    // 17 lines and half of one.
    writeFileSync(cut, `${ends.slice(0, 17).join('\n')}\n${(ends[17] as string).slice(0, 20)}`)
    copyFileSync(join(folder, 'whole.run.json'), join(folder, 'cut.run.json'))
    const options = { data, maxNewTokens: 4 }
    expect(await inferEmoVerse(model, { ...options, output: cut })).toMatchObject({ continued: 17, records: 42 })
    expect(readFileSync(cut, 'utf8')).toBe(whole)
    expect(await inferEmoVerse(model, { ...options, output: cut })).toMatchObject({ continued: 42 })
    const results = join(folder, 'results')
    const first = await inferEmoVerse(model, { ...options, output: results })
    expect(first.file).toMatch(/results\/\d{8}-\d{6}\.jsonl$/)
    writeFileSync(first.file, whole.slice(0, whole.indexOf('\n') + 1))
    expect(await inferEmoVerse(model, { ...options, output: results })).toMatchObject({
      file: first.file,
      continued: 1,
    })
    expect(readFileSync(first.file, 'utf8')).toBe(whole)
    // One that is finished stays as it is.
    expect((await inferEmoVerse(model, { ...options, output: results })).file).not.toBe(first.file)
    expect(readdirSync(results).filter((name) => name.endsWith('.jsonl'))).toHaveLength(2)
    const other = { data: asked(50), output: cut, maxNewTokens: 4 }
    await expect(inferEmoVerse(model, other)).rejects.toThrow(
      / line 1: expected the results of this data, got another question\. Name another file/,
    )
    appendFileSync(cut, `${ends[0]}\n`)
    await expect(inferEmoVerse(model, { ...options, output: cut })).rejects.toThrow(
      /line 43: .*got more results than records/,
    )
  })

  it('draws the same of a seed, however many at a time and where it goes on', async () => {
    using model = await tinyEmoVerse({ system: 'S' })
    const options = { data: asked(12), maxNewTokens: 6, doSample: true, seed: 3 }
    const drawn = async (name: string, more: object) => {
      const output = join(folder, name)
      await inferEmoVerse(model, { ...options, ...more, output })
      return readFileSync(output, 'utf8')
    }
    const whole = await drawn('drawn.jsonl', {})
    expect(await drawn('drawn-one.jsonl', { batchSize: 1 })).toBe(whole)
    expect(await drawn('drawn-other.jsonl', { seed: 4 })).not.toBe(whole)
    const stop = { batchSize: 1, onProgress: () => { throw new Error('stopped') } } // biome-ignore format: one line
    await expect(drawn('drawn-cut.jsonl', stop)).rejects.toThrow('stopped')
    await expect(drawn('drawn-cut.jsonl', { seed: 4 })).rejects.toThrow(/\(seed\)/)
    expect(await drawn('drawn-cut.jsonl', { batchSize: 5 })).toBe(whole)
    // Records with the same question have draws of their own.
    const [question] = asked(1)
    const alike = Array.from({ length: 12 }, () => question as { query: string })
    const answers = await model.generate(alike, { maxNewTokens: 6, doSample: true, seed: 3 })
    expect(new Set(answers.map(({ text }) => text)).size).toBeGreaterThan(1)
    await expect(model.generate(alike, { seed: -1 })).rejects.toThrow(/seed to be/)
  })

  it('goes on with results of the same model and settings alone', async () => {
    using model = await tinyEmoVerse({ system: 'S' })
    const [output, results] = [join(folder, 'one.jsonl'), join(folder, 'settings')]
    const options = { data: asked(40), maxNewTokens: 4 }
    const wave = { ...options, batchSize: 2 }
    const stopped = new Error('stopped')
    const first = inferEmoVerse(model, { ...wave, output, onProgress: () => { throw stopped } }) // biome-ignore format: one line
    await expect(first).rejects.toBe(stopped)
    const before = readFileSync(output, 'utf8')
    using other = await tinyEmoVerse({ system: 'S', seed: 2 })
    using asker = await tinyEmoVerse({ system: 'T' })
    for (const [who, more, keys] of [
      [other, {}, /\(model\)/],
      [asker, {}, /\(model\)/],
      [model, { maxNewTokens: 5 }, /\(maxNewTokens\)/],
      [model, { byLabels: true }, /\(byLabels\)/],
      [model, { constrained: true }, /\(constrained\)/],
      [model, { prefixAllowedTokensFn: () => [1] }, /\(prefixAllowedTokensFn\)/],
    ] as const) {
      const error = await inferEmoVerse(who, { ...options, ...more, output }).catch((one: unknown) => one)
      expect(error).toBeInstanceOf(ConfigError)
      expect((error as Error).message).toMatch(keys)
    }
    expect(readFileSync(output, 'utf8')).toBe(before)
    // How many at a time changes nothing.
    expect(await inferEmoVerse(model, { ...options, output })).toMatchObject({ continued: 8, records: 40 })
    // In a folder another model begins a file of its own, and leaves the first where it stopped.
    const begun = inferEmoVerse(model, { ...wave, output: results, onProgress: () => { throw stopped } }) // biome-ignore format: one line
    await expect(begun).rejects.toBe(stopped)
    const [name = ''] = readdirSync(results)
    const fresh = await inferEmoVerse(other, { ...options, output: results })
    expect(fresh).toMatchObject({ continued: 0, records: 40 })
    expect(fresh.file).not.toBe(join(results, name))
    expect(linesOf(join(results, name))).toHaveLength(8)
    // Nobody knows what made these.
    rmSync(join(folder, 'one.run.json'))
    await expect(inferEmoVerse(model, { ...options, output })).rejects.toThrow(/got results without .*one\.run\.json/)
    // The same question about something else.
    const another = options.data.map((one, i) => (i === 3 ? { ...one, response: 'Else.' } : one))
    const kept = join(folder, 'kept.jsonl')
    await inferEmoVerse(model, { ...options, output: kept })
    await expect(inferEmoVerse(model, { ...options, data: another, output: kept })).rejects.toThrow(
      / line 4: expected the results of this data, got another label\. Name another file/,
    )
  })

  it('leaves out records whose media cannot be read, and no others, also where it goes on', async () => {
    using model = await hearingEmoVerse()
    const stored = (name: string, bytes: Buffer | string) => writeFileSync(join(folder, name), bytes)
    stored(
      'good.ppm',
      ppm(28, 28, (x, y) => [8 * x, 8 * y, 100]),
    )
    stored('broken.ppm', 'P6\n28 28\n255\nxx')
    await writeWav(join(folder, 'good.wav'), tensor(voice(200, 0.5)), { sampleRate: 16000 })
    stored('cut.wav', readFileSync(join(folder, 'good.wav')).subarray(0, 40))
    const media = ['good.ppm', 'broken.ppm', 'good.ppm', 'good.wav', 'cut.wav', 'good.ppm', 'good.wav', 'broken.ppm']
    const data = media.map((file, i) => ({
      ...{ query: i % 2 === 0 ? `'${i}' <emotion>` : `${i}`, response: `${i}` },
      ...(file.endsWith('ppm') ? { images: [file] } : { audios: [file] }),
    }))
    const options = { data, mediaRoot: folder, maxNewTokens: 2, batchSize: 1 }
    const [first, again] = [join(folder, 'media.jsonl'), join(folder, 'media-again.jsonl')]
    for (const byLabels of [false, true]) {
      const found = await inferEmoVerse(model, { ...options, byLabels, output: first })
      expect(found).toMatchObject({ records: 5, continued: 0 })
      expect(found.notes).toEqual([
        expect.stringMatching(
          /^3 records were left out whose media or texts cannot be read, the first: record 2: .*broken/,
        ),
      ])
      expect(linesOf(first).map(({ label }) => label)).toEqual(['0', '2', '3', '5', '6'])
      const whole = readFileSync(first, 'utf8')
      // Stopped behind each number of lines: with what is left out, the same is told and written.
      for (const lines of [0, 1, 3, 4, 5]) {
        writeFileSync(again, whole.split('\n').slice(0, lines).map((line) => `${line}\n`).join('')) // biome-ignore format: one line
        copyFileSync(join(folder, 'media.run.json'), join(folder, 'media-again.run.json'))
        const more = await inferEmoVerse(model, { ...options, byLabels, output: again })
        expect(more).toEqual({ ...found, file: again, continued: lines })
        // What was read before lets probabilities differ by rounding.
        const plain = (file: string) => linesOf(file).map(({ probabilities: _, ...line }) => line)
        expect(plain(again)).toEqual(plain(first))
      }
      const stopping = {
        ...options,
        byLabels,
        output: join(folder, `stop-${byLabels}.jsonl`),
        onBadRecord: 'stop' as const,
      }
      const error = await inferEmoVerse(model, stopping).catch((one: unknown) => one)
      expect(error).toBeInstanceOf(DataError)
      expect(error).toMatchObject({ record: 2, message: expect.stringMatching(/the data record 2: .*broken\.ppm/) })
      // With one answer at a time and with many, what stands before it is kept.
      expect(linesOf(stopping.output).map(({ label }) => label)).toEqual(['0'])
      await expect(inferEmoVerse(model, { ...stopping, batchSize: 8 })).rejects.toThrow(/record 2/)
      expect(linesOf(stopping.output).map(({ label }) => label)).toEqual(['0'])
      const { records } = await inferEmoVerse(model, { ...stopping, onBadRecord: 'skip' })
      expect([records, linesOf(stopping.output).length]).toEqual([5, 5])
      const published = await inferEmoVerse(model, {
        ...options,
        byLabels,
        compat: 'published',
        output: `${first}.jsonl`,
      })
      expect(published.notes).toEqual([expect.stringMatching(/^3 records were answered with nothing whose media/)])
      const lines = linesOf(`${first}.jsonl`)
      expect(lines.map(({ response }) => response === '')).toEqual(media.map((name) => /broken|cut/.test(name)))
      for (const file of [first, `${first}.jsonl`]) rmSync(file)
    }
    // Ears alone look for their files beforehand.
    using hears = await tinyEmoVerse({ media: 'read' }).then(async ({ model: network, tokenizer }) => {
      const { speech } = await hearingEmoVerse()
      return new EmoVerse({ model: network, tokenizer, system: null, speech })
    })
    const missing = [{ query: 'a', response: 'b', audios: ['none.wav'] }, ...data.slice(3, 4)]
    const heard = await inferEmoVerse(hears, { ...options, data: missing, output: join(folder, 'ears.jsonl') })
    expect(heard).toMatchObject({ records: 1, notes: [expect.stringMatching(/1 that refer to missing files/)] })
  })

  it('answers by the likeliest label where that is wanted', async () => {
    using model = await tinyEmoVerse()
    const query = "'a' <emotion> anger, joy, neutral or fear."
    const data = [
      { query, response: 'Joy.' },
      { query: 'What else?', response: 'x' },
    ]
    const output = join(folder, 'labels.jsonl')
    const before = await settledTensors()
    await inferEmoVerse(model, { data, output, byLabels: true, maxNewTokens: 2 })
    // What was read last is kept for the next question.
    model.prefixCaches.dispose()
    expect(await settledTensors()).toBe(before)
    const [first, second] = linesOf(output)
    const shares = Object.entries(first.probabilities as Record<string, number>)
    expect(shares.map(([label]) => label)).toEqual(EMOTION_LABELS.meld)
    expect(shares.reduce((sum, [, share]) => sum + share, 0)).toBeCloseTo(1, 5)
    expect(first.probabilities[first.response]).toBe(Math.max(...shares.map(([, share]) => share)))
    expect(second).not.toHaveProperty('probabilities')
    // Each label by itself behind the question.
    const lost = await Promise.all(
      EMOTION_LABELS.meld.map((response) =>
        scope(() =>
          noGrad(async () => {
            const { loss, logits } = await emoverseLoss(
              model,
              emoverseCollate([await model.encode({ query, response })]),
            )
            loss.dispose()
            return ((logits as Tensor).toArray() as number[][])[0]?.[0] as number
          }),
        ),
      ),
    )
    const all = lost.reduce((sum, loss) => sum + Math.exp(-loss), 0)
    for (const [i, [, share]] of shares.entries()) expect(share).toBeCloseTo(Math.exp(-(lost[i] as number)) / all, 5)
  })

  it('refuses what cannot be', async () => {
    using model = await tinyEmoVerse()
    const output = join(folder, 'none.jsonl')
    await expect(inferEmoVerse(model, { data: asked(2), output, maxNewToken: 1 } as never)).rejects.toThrow(
      /maxNewToken/,
    )
    await expect(inferEmoVerse(model, { data: join(folder, 'none.json'), output })).rejects.toBeInstanceOf(DataError)
    await expect(inferEmoVerse(model, { data: asked(2), output, maxLength: 3 })).rejects.toThrow(
      /expected at most 3 tokens.*, got \d+/,
    )
    expect(existsSync(output)).toBe(false)
    // Answers by labels have the same limits.
    const query = `'Oh.' <emotion> Please determine which emotion label in the video represents: joy or fear.`
    const labeled = { data: [{ query, response: null }], output, byLabels: true }
    for (const limit of [{ maxLength: 3 }, { maxExpandedLength: 3 }]) {
      await expect(inferEmoVerse(model, { ...labeled, ...limit })).rejects.toThrow(
        /expected at most 3 tokens.*, got \d+/,
      )
      expect(existsSync(output)).toBe(false)
      await inferEmoVerse(model, { ...labeled, ...limit, compat: 'published' })
      const [line] = linesOf(output)
      expect(line.response).toBe('')
      expect(line).not.toHaveProperty('probabilities')
      rmSync(output)
    }
  })
})

describe('EmoVerse.generate', () => {
  const question = { query: 'Hello' }
  const streamed = async (model: EmoVerse, options: object) => {
    let text = ''
    for await (const piece of model.stream(question, options)) text += piece.text
    return text
  }

  it("ends at a user's tokens and texts too, and still at the template's", async () => {
    using model = await tinyEmoVerse()
    const { tokenizer } = model
    const idsOf = (text: string) => [...tokenizer.encode(text, { addSpecialTokens: false }).inputIds]
    const settings = { maxNewTokens: 12, allowedTokens: idsOf('abcdefghijklmnopqrstuvwxyz'), noRepeatNgramSize: 1 }
    const plain = (await model.generate([question], settings))[0]?.text as string
    const ids = idsOf(plain)
    // Up to where the token first comes, which stays.
    const stop = ids[3] as number
    const cut = plain.slice(0, ids.indexOf(stop) + 1)
    expect(cut.length).toBeLessThan(plain.length)
    for (const more of [{ eosTokenId: stop }, { eosTokenId: [stop] }, { stopSequences: [[stop]] }]) {
      expect((await model.generate([question], { ...settings, ...more }))[0]?.text).toBe(cut)
      expect(await streamed(model, { ...settings, ...more })).toBe(cut)
    }
    const end = tokenizer.eosTokenId as number
    const forced = { maxNewTokens: 5, allowedTokens: [end] }
    for (const own of [{}, { eosTokenId: stop }, { eosTokenId: null, stopSequences: [[stop]] }]) {
      expect(await model.generate([question], { ...forced, ...own })).toEqual([{ text: '', tokens: 1 }])
      expect(await streamed(model, { ...forced, ...own })).toBe('')
    }
    await expect(model.generate([question], { stopSequences: 5 as never })).rejects.toThrow(
      /stopSequences: expected a list/,
    )
  })

  it('refuses by name what an answer has no place for', async () => {
    using model = await tinyEmoVerse()
    for (const [name, value] of [
      ['numReturnSequences', 2],
      ['outputScores', true],
      ['outputLogits', true],
      ['outputLogprobs', true],
    ] as const) {
      const options = { [name]: value, doSample: true, maxNewTokens: 1 }
      for (const asked of [model.generate([question], options), model.stream(question, options).next()]) {
        const error = await asked.then(
          () => null,
          (one: unknown) => one,
        )
        expect(error).toBeInstanceOf(ConfigError)
        expect(error).toMatchObject({ argument: name, message: expect.stringContaining(name) })
      }
    }
    expect(
      await model.generate([question], { numReturnSequences: 1, outputLogits: false, maxNewTokens: 1 }),
    ).toHaveLength(1)
  })
})

it('reads a stage from YAML, and names a key that it does not know', async () => {
  const file = join(folder, 'stage.yaml')
  writeFileSync(file, 'name: first\ndata: [a.json, b.json]\nrecipe: { epochs: 1 }\nlora: { r: 4 }\n')
  expect(await readEmoVerseStage(file)).toEqual({
    name: 'first',
    data: ['a.json', 'b.json'],
    recipe: { epochs: 1 },
    lora: { r: 4 },
  })
  for (const [text, message] of [
    ['data: a.json\nrecipes: {}\n', /did you mean 'recipe'/],
    ['data: a.json\nrecipe: { epoch: 1 }\n', /did you mean 'epochs'/],
    ['name: x\n', /expected data to be a file/],
  ] as const) {
    writeFileSync(file, text)
    await expect(readEmoVerseStage(file)).rejects.toThrow(message)
  }
  for (const name of ['first', 'second']) {
    const path = fileURLToPath(new URL(`../../../examples/configs/m2se-${name}.yaml`, import.meta.url))
    expect((await readEmoVerseStage(path)).name).toBe(name)
  }
})

it('shows scores as a page', async () => {
  const file = join(folder, 'page.jsonl')
  writeFileSync(file, '{"query": "<emotion>", "label": "Joy.", "response": "<b>"}\n')
  const page = emoverseScoresPage(await scoreEmoVerse(file), 'A & B')
  expect(page).toMatch(/A &amp; B[\s\S]*always Joy\./)
  expect(page).not.toMatch(/<b>/)
})
