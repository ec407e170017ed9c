import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import {
  ConfigError,
  DataError,
  IMAGENET_STATISTICS,
  InternVL,
  noGrad,
  normalizeImage,
  ops,
  readImage,
  scope,
  type Tensor,
  tensor,
  tileImage,
} from '../../../lib/index.js'
import { internVLPrompt } from '../../../lib/models/internvl/prompt.js'
import {
  EmoVerse,
  type EmoVerseQuestion,
  emoverseCollate,
  emoverseLoss,
  inferEmoVerse,
} from '../../../lib/systems/emoverse/index.js'
import { ROUNDING, settledTensors } from '../../helpers.js'
import { noiseBytes } from '../../vision/images.js'
import { ppm, seeingEmoVerse, tinyEmoVerse } from './tiny.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-emoverse-media-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** A file of noise. */
function picture(name: string, width: number, height: number, seed = 1): string {
  const bytes = noiseBytes(seed, 3 * width * height)
  const file = join(folder, name)
  writeFileSync(
    file,
    ppm(width, height, (x, y) => bytes.subarray(3 * (y * width + x), 3 * (y * width + x) + 3)),
  )
  return file
}

const [square, wide] = [picture('square.ppm', 28, 28), picture('wide.ppm', 60, 28, 2)]
const film = join(folder, 'film')
mkdirSync(film)
for (let i = 0; i < 10; i++) picture(`film/frame${i}.ppm`, 30, 20, 10 + i)

/** Tiles of a picture as InternVL reads them, by the library's own steps. */
async function pixelsOf(image: string, maxTiles: number, dtype: 'float32' | 'float64'): Promise<Tensor> {
  const { tiles } = await tileImage(await readImage(image), { size: 28, maxTiles })
  return normalizeImage(tiles.permute([0, 3, 1, 2]).to({ dtype: 'float32' }).div(255), IMAGENET_STATISTICS).then(
    (one) => one.to({ dtype }),
  )
}

describe('records with imageInputs and films', () => {
  it('are tokens with places for tiles and frames, in the order of their markers', async () => {
    using model = await seeingEmoVerse({ system: 'S' })
    const CONTEXT = model.tokenizer.tokenToId('<IMG_CONTEXT>') as number
    const record = { query: 'b<image>', response: 'c', history: [['<image>a', 'x']] as [string, string][], images: [wide, square] }
    const { inputIds, labels, imageInputs, task } = await model.encode(record)
    expect([imageInputs.map(({ tiles }) => tiles), task]).toEqual([[3, 1], 'other'])
    const turns = [['<image>a', 'x'], ['b<image>', 'c']] as const // biome-ignore format: one line
    const conversation = { turns, system: 'S', images: [3, 1], videos: [] }
    expect({ inputIds, labels }).toEqual((({ tiles: _, ...rest }) => rest)(internVLPrompt(model.tokenizer, conversation, { template: 'hermes2', tileTokens: 4 })))
    expect(inputIds.filter((id) => id === CONTEXT)).toHaveLength(16)
    // A film has eight frames of one tile, and imageInputs beside it one tile too; what has no marker stands in front.
    const both = await model.encode({ query: 'q<image>', images: [wide], videos: [film] }, { answer: false })
    expect(both.imageInputs.map(({ tiles }) => tiles)).toEqual([8, 1])
    const text = model.tokenizer.decode(both.inputIds.filter((id) => id !== CONTEXT), { skipSpecialTokens: false })
    expect(text).toContain('<|im_start|>user\nFrame1: <img></img>\nFrame2: <img></img>\n')
    expect(text).toContain('Frame8: <img></img>\nq<img></img>\n<|im_end|><|im_start|>assistant\n')
    // Counted as ms-swift counts before imageInputs become tokens.
    expect(model.lengthOf({ query: 'q', response: null, images: [wide] })).toBe((await model.encode({ query: 'q' }, { answer: false })).inputIds.length + 1)
  }) // biome-ignore format: long lines

  it('are the same in memory as in files, from another folder too', async () => {
    using model = await seeingEmoVerse()
    const ids = async (question: EmoVerseQuestion, mediaRoot?: string) => {
      const sample = await model.encode(question, { answer: false, mediaRoot })
      const features = await scope(async () => (await model.vision?.features(sample.imageInputs))?.flatten().toArray())
      return { inputIds: sample.inputIds, features }
    }
    const bytes = readFileSync(wide)
    const asTensor = await readImage(wide)
    const expected = await ids({ query: 'q', images: [wide] })
    expect(await ids({ query: 'q', images: [bytes] })).toEqual(expected)
    expect(await ids({ query: 'q', images: [asTensor] })).toEqual(expected)
    expect(await ids({ query: 'q', images: ['wide.ppm'] }, folder)).toEqual(expected)
    const frames = Array.from({ length: 10 }, (_, i) => join(film, `frame${i}.ppm`))
    const whole = await ids({ query: 'q', videos: [film] })
    expect(await ids({ query: 'q', videos: [frames] })).toEqual(whole)
    const stacked = ops.stack(await Promise.all(frames.map((file) => readImage(file))))
    expect(await ids({ query: 'q', videos: [stacked] })).toEqual(whole)
    const looks = [...(await model.look({ images: [wide] })), ...(await model.look({ videos: [film] }))]
    expect(looks.map(({ kind, tiles, side, grid, frames }) => ({ kind, tiles, side, grid, frames }))).toEqual([
      { kind: 'image', tiles: 3, side: 28, grid: [2, 1], frames: null },
      { kind: 'video', tiles: 8, side: 28, grid: null, frames: [0, 1, 2, 3, 4, 6, 7, 8] },
    ])
    expect(looks[0]?.pixels).toHaveLength(3 * 28 * 28 * 3)
    const { tiles } = await tileImage(asTensor, { size: 28 })
    expect(Array.from(looks[0]?.pixels ?? [])).toEqual(tiles.flatten().toArray())
  })

  it('that cannot be are refused by name', async () => {
    using model = await seeingEmoVerse()
    const refused = (question: EmoVerseQuestion) => expect(model.encode(question, { answer: false })).rejects
    await refused({ query: '<image><image>', images: [square] }).toThrow(/images: expected 2 for 2 markers <image>, got 1/)
    await refused({ query: 'a <image>', images: [square], history: [['q', '<image>']] }).toThrow(/images: expected 2 for 2 markers <image>, got 1/)
    await refused({ query: 'x<IMG_CONTEXT>' }).toThrow(/expected texts without <IMG_CONTEXT>/)
    await refused({ query: 'x', images: [join(folder, 'none.ppm')] }).toThrow(/none\.ppm: expected a readable file or folder, got ENOENT/)
    writeFileSync(join(folder, 'broken.ppm'), 'P6\n9 9\n255\nx')
    await refused({ query: 'x', images: [join(folder, 'broken.ppm')] }).toThrow(DataError)
    await refused({ query: 'x', audios: ['a.wav'] }).toThrow(/audios: expected a model with an audio encoder, got one without/)
    using blind = await tinyEmoVerse({ media: 'read' })
    await expect(blind.encode({ query: 'x', images: [square] }, { answer: false })).rejects.toThrow(ConfigError)
    await expect(blind.generate([{ query: 'x', videos: [film] }])).rejects.toThrow(/videos: expected a model with a vision encoder, got one without/)
    await expect(blind.look({ images: [square] })).rejects.toThrow(ConfigError)
    expect((await blind.encode({ query: 'x' }, { answer: false })).imageInputs).toEqual([])
    using words = await seeingEmoVerse({ media: 'ignore' })
    expect(words.seesMedia).toBe(false)
    const { inputIds } = await words.encode({ query: '<image>x', images: ['nowhere'] }, { answer: false })
    expect(inputIds).toEqual((await blind.encode({ query: 'x' }, { answer: false })).inputIds)
    expect(() => new EmoVerse({ model: words.model, tokenizer: words.tokenizer, vision: { tiles: 1 } as never })).toThrow(/tiles/)
    expect(() => new EmoVerse({ model: blind.model, tokenizer: blind.tokenizer, vision: { maxTiles: 1 } })).toThrow(/vision: expected no vision options for a text-only DecoderLM/)
  }) // biome-ignore format: long lines
})

describe('an EmoVerse that sees', () => {
  it('has the loss of the network itself with each record, and gradients alike but for the vision part', async () => {
    using model = await seeingEmoVerse({ dtype: 'float64' })
    const network = model.model as InternVL
    network.vision_model.freeze()
    const records = [
      { query: 'a', response: 'Joy.', images: [wide] },
      { query: 'b', response: 'No.' },
      { query: 'c<image>d<image>', response: 'Fear.', images: [square, wide] },
    ]
    await scope(async () => {
      const samples = await Promise.all(records.map((record) => model.encode(record)))
      const gradientsOf = async (lossOf: () => Promise<Tensor>) => {
        for (const parameter of network.parameters()) parameter.grad = null
        const loss = await lossOf()
        await loss.backward()
        const names = ['mlp1.1.weight', 'mlp1.3.bias', 'language_model.model.layers.0.mlp.up_proj.weight']
        const state = Object.fromEntries(network.namedParameters())
        return [loss, ...names.map((name) => (state[name] as Tensor).grad as Tensor).map((grad) => grad.clone())]
      }
      const own = await gradientsOf(async () => (await emoverseLoss(model, emoverseCollate(samples))).loss)
      expect(network.vision_model.parameters().every(({ grad }) => grad === null)).toBe(true)
      const native = await gradientsOf(async () => {
        const sums: Tensor[] = []
        let tokens = 0
        for (const [i, { inputIds, labels }] of samples.entries()) {
          const { images = [] } = records[i] as { images?: string[] }
          const pixels = await Promise.all(images.map((image) => pixelsOf(image, 12, 'float64')))
          const { loss } = await network.forward({
            inputIds: tensor([inputIds], { dtype: 'int64' }),
            labels: tensor([labels], { dtype: 'int64' }),
            ...(pixels.length > 0 && { pixelValues: ops.cat(pixels) }),
          })
          const count = labels.slice(1).filter((id) => id >= 0).length
          sums.push((loss as Tensor).mul(count))
          tokens += count
        }
        return ops.stack(sums).sum().div(tokens)
      })
      for (const [i, one] of own.entries()) {
        const other = native[i] as Tensor
        const far = one
          .to({ dtype: 'float64' })
          .sub(other.to({ dtype: 'float64' }))
          .abs()
          .max()
          .div(other.abs().max())
        // Pixels are divided, and losses taken, in float32.
        expect(far.item() as number).toBeLessThan(100 * ROUNDING.float32)
      }
    })
  })

  it('answers several at a time as each by itself, and as the network does with padding on the left', async () => {
    using model = await seeingEmoVerse({ seed: 4 })
    const network = model.model as InternVL
    const records: EmoVerseQuestion[] = [
      { query: 'a', images: [wide] },
      { query: 'words alone' },
      { query: 'cc', videos: [film] },
      { query: 'd', images: [square] },
    ]
    const options = { maxNewTokens: 6 }
    const before = await settledTensors()
    const together = await model.generate(records, { ...options, batchSize: 3 })
    for (const [i, record] of records.entries()) expect((await model.generate([record], options))[0]).toEqual(together[i])
    expect(await settledTensors()).toBe(before)
    await scope(async () => {
      const samples = await Promise.all(records.map((record) => model.encode(record, { answer: false })))
      const longest = Math.max(...samples.map(({ inputIds }) => inputIds.length))
      const padded = (value: (id: number) => number, pad: number) =>
        tensor(samples.map(({ inputIds }) => [...new Array(longest - inputIds.length).fill(pad), ...inputIds.map(value)]), { dtype: 'int64' }) // biome-ignore format: one line
      const frames = await Promise.all([0, 1, 2, 3, 4, 6, 7, 8].map((i) => pixelsOf(join(film, `frame${i}.ppm`), 1, 'float32')))
      const pixelValues = ops.cat([await pixelsOf(wide, 12, 'float32'), ...frames, await pixelsOf(square, 12, 'float32')])
      const inputs = { inputIds: padded((id) => id, 0), attentionMask: padded(() => 1, 0), pixelValues }
      const { tokens } = await network.generate(inputs, { ...options, eosTokenId: model.tokenizer.tokenToId('<|im_end|>') as number })
      expect(tokens.map((ids) => model.textOf(ids))).toEqual(together.map(({ text }) => text))
    })
    await expect(model.generate(records, { maxExpandedLength: 60 })).rejects.toThrow(/record 3 of 4: expected at most 60 tokens, media included, got \d+/)
  }) // biome-ignore format: long lines

  it('writes piece by piece what it writes at once, and goes on with what it has read', async () => {
    using model = await seeingEmoVerse({ seed: 4 })
    const said = async (question: EmoVerseQuestion) => {
      let [text, tokens] = ['', 0]
      const reasons: (string | null)[] = []
      for await (const piece of model.stream(question, { maxNewTokens: 5 })) {
        text += piece.text
        tokens += piece.tokens
        reasons.push(piece.finishReason)
      }
      expect(reasons.slice(0, -1).every((reason) => reason === null)).toBe(true)
      expect(reasons.at(-1)).toBe(tokens === 5 ? 'length' : 'stop')
      return { text, tokens }
    }
    const question = { query: '<image>What?', images: [wide] }
    const before = await settledTensors()
    const [first] = await model.generate([question], { maxNewTokens: 5 })
    expect(await said(question)).toEqual(first)
    // The same again, another question about the same picture, another picture, the next turn: each as read anew.
    const more: EmoVerseQuestion[] = [
      question,
      { query: '<image>Who?', images: [wide] },
      { query: '<image>What?', images: [square] },
      { query: 'And <image>?', images: [wide, square], history: [['<image>What?', first?.text as string]] },
    ]
    for (const one of more) expect(await said(one)).toEqual((await model.generate([one], { maxNewTokens: 5 }))[0])
    const labels = ['Joy.', 'Fear.', 'No']
    const shares = await model.scoreLabels(question, labels)
    expect(Object.values(shares).reduce((a, b) => a + b, 0)).toBeCloseTo(1, 5)
    const again = await model.scoreLabels(question, labels)
    for (const label of labels) expect(again[label]).toBeCloseTo(shares[label] as number, 5)
    const other = await model.scoreLabels({ ...question, images: [square] }, labels)
    expect(Math.abs((other['Joy.'] as number) - (shares['Joy.'] as number))).toBeGreaterThan(1e-7)
    // Each label by itself behind the question.
    const lost: number[] = []
    for (const response of labels) {
      const { logits, loss } = await emoverseLoss(model, emoverseCollate([await model.encode({ ...question, response })]))
      lost.push(((logits as Tensor).toArray() as number[][])[0]?.[0] as number)
      logits?.dispose()
      loss.dispose()
    }
    const all = lost.reduce((sum, loss) => sum + Math.exp(-loss), 0)
    for (const [i, label] of labels.entries()) expect(shares[label]).toBeCloseTo(Math.exp(-(lost[i] as number)) / all, 4)
    // Other weights: nothing of what was read before is right any more.
    const { 'model.layers.0.mlp.up_proj.weight': weight } = Object.fromEntries(model.llm.namedParameters())
    noGrad(() => void weight?.mul_(-1))
    const fresh = await model.generate([question], { maxNewTokens: 5 })
    expect(await said(question)).toEqual(fresh[0])
    // Given up in the middle.
    for await (const piece of model.stream(question)) if (piece.tokens > 0) break
    const stop = new AbortController()
    stop.abort(new Error('enough'))
    await expect(model.stream(question, { signal: stop.signal }).next()).rejects.toThrow('enough')
    model.prefixCaches.dispose()
    expect(await settledTensors()).toBe(before)
  }) // biome-ignore format: long lines

  it('comes back from its folder, with the template of its configuration', async () => {
    using model = await seeingEmoVerse({ seed: 7 })
    await model.save(join(folder, 'saved'))
    using again = await EmoVerse.fromPretrained(join(folder, 'saved'), { system: null, vision: { frames: 4 } })
    expect([again.seesMedia, again.template, again.model instanceof InternVL]).toEqual([true, 'hermes2', true])
    const question = { query: '<image>?', images: [wide] }
    expect(await again.generate([question], { maxNewTokens: 6 })).toEqual(
      await model.generate([question], { maxNewTokens: 6 }),
    )
    expect((await again.encode({ query: 'q', videos: [film] }, { answer: false })).imageInputs[0]?.tiles).toBe(4)
  })

  it('answers data with media into a result file', async () => {
    using model = await seeingEmoVerse()
    const data = [
      { query: 'a <emotion> anger, joy, neutral or fear.', response: 'Joy.', images: ['wide.ppm'] },
      { query: '<video>b', response: null, videos: ['film'] },
    ]
    const output = join(folder, 'results.jsonl')
    await inferEmoVerse(model, { data, output, mediaRoot: folder, byLabels: true, maxNewTokens: 3, visionCache: join(folder, 'cache') })
    const lines = readFileSync(output, 'utf8').trim().split('\n').map((line) => JSON.parse(line))
    expect(lines.map(({ images, videos }) => images ?? videos)).toEqual([['wide.ppm'], ['film']])
    expect(Object.keys(lines[0].probabilities)).toHaveLength(7)
    expect(readdirSync(join(folder, 'cache'))).toEqual([expect.stringMatching(/^[0-9a-f]{32}\.features$/)])
  }) // biome-ignore format: long lines
})
