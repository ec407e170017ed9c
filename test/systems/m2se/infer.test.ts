import { execFileSync, spawnSync } from 'node:child_process'
import { appendFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { DataError, noGrad, scope, type Tensor } from '../../../lib/index.js'
import {
  EMOTION_LABELS,
  emoverseCollate,
  emoverseLoss,
  emoverseScoresPage,
  inferEmoVerse,
  readEmoVerseStage,
  scoreEmoVerse,
  writeSwiftDataset,
} from '../../../lib/systems/m2se/index.js'
import { settledTensors } from '../../helpers.js'
import { PATIENCE } from '../../patience.js'
import { asked, tinyEmoVerse } from './tiny.js'

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
    expect(readdirSync(results)).toHaveLength(2)
    const other = { data: asked(50), output: cut, maxNewTokens: 4 }
    await expect(inferEmoVerse(model, other)).rejects.toThrow(/line 1: this result has another question/)
    appendFileSync(cut, `${ends[0]}\n`)
    await expect(inferEmoVerse(model, { ...options, output: cut })).rejects.toThrow(/line 43: .*one more than the data/)
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
    model.beginnings.dispose()
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
    await expect(inferEmoVerse(model, { data: asked(2), output, maxLength: 3 })).rejects.toThrow(/more than 3/)
    expect(existsSync(output)).toBe(false)
    // Answers by labels have the same limits.
    const query = `'Oh.' <emotion> Please determine which emotion label in the video represents: joy or fear.`
    const labelled = { data: [{ query, response: null }], output, byLabels: true }
    for (const limit of [{ maxLength: 3 }, { maxExpandedLength: 3 }]) {
      await expect(inferEmoVerse(model, { ...labelled, ...limit })).rejects.toThrow(/more than 3/)
      expect(existsSync(output)).toBe(false)
      await inferEmoVerse(model, { ...labelled, ...limit, compat: 'published' })
      const [line] = linesOf(output)
      expect(line.response).toBe('')
      expect(line).not.toHaveProperty('probabilities')
      rmSync(output)
    }
  })
})

describe('voxtorch emoverse', () => {
  const main = fileURLToPath(new URL('../../../dist/cli/main.js', import.meta.url))
  const run = (...words: string[]) =>
    execFileSync(process.execPath, [main, ...words], {
      cwd: folder,
      encoding: 'utf8',
      timeout: PATIENCE,
      stdio: ['ignore', 'pipe', 'ignore'],
    })
  const fails = (...words: string[]) => spawnSync(process.execPath, [main, ...words], { cwd: folder, encoding: 'utf8', timeout: PATIENCE }).stderr // biome-ignore format: one line
  beforeAll(async () => {
    using model = await tinyEmoVerse({ seed: 3 })
    await model.save(join(folder, 'base'))
    await writeSwiftDataset(join(folder, 'emt_data_first.json'), asked(30))
    const labels: Record<string, string> = { 'Pos.': 'Positive.', 'Neg.': 'Negative.', 'Sad.': 'Sadness.' }
    const test = asked(6).map((one) => ({ ...one, response: labels[one.response as string] ?? one.response }))
    await writeSwiftDataset(join(folder, 'test.json'), test)
  })

  it('trains by the words of the published scripts, answers and scores, each under its name in one word too', () => {
    const words = '--sft_type lora --num_train_epochs 2 --batch_size 6 --gradient_accumulation_steps 1 --max_length 2048 --gradient_checkpointing true --eval_steps 1000 --save_steps 500 --save_total_limit 3 --logging_steps 10 --acc_strategy sentence --learning_rate 1e-2 --no-progress'
    const trained = JSON.parse(run('emoverse-sft', '--model_id_or_path', 'base', '--dataset', 'emt_data_first.json', '--system', 'S', ...words.split(' '), '--output_dir', 'run'))
    expect(trained.stages[0]).toMatchObject({ name: 'stage-1', samples: { train: 29, valid: 1 } })
    expect(trained.model).toBe('run/model')
    run('emoverse-infer', '--model_id_or_path', 'run/model', '--val_dataset', 'test.json', '--system', 'S', '--max_new_tokens', '6', '--max_length', '2048', '--result_dir', 'answers')
    const [file = ''] = readdirSync(join(folder, 'answers'))
    const said = run('emoverse', 'score', `answers/${file}`, '--html', 'scores.html', '--json', 'scores.json')
    expect(said).toMatch(/6 results[\s\S]*accuracy/)
    expect(readFileSync(join(folder, 'scores.html'), 'utf8')).toMatch(/^<!doctype html>[\s\S]*Emotion[\s\S]*taken for/)
    expect(fails('emoverse', 'score', `answers/${file}`, '--mode', 'strict')).toMatch(/needs a task/)
    const adapters = ['--adapters', 'run/stage-1/adapter']
    run('emoverse', 'infer', '--model', 'base', ...adapters, '--val_dataset', 'test.json', '--system', 'S', '--max-new-tokens', '6', '--output', 'merged.jsonl')
    expect(linesOf(join(folder, 'merged.jsonl'))).toEqual(linesOf(join(folder, 'answers', file)))
  }) // biome-ignore format: command lines

  it('makes data, and names what it does not know', () => {
    writeFileSync(
      join(folder, 'meld.csv'),
      'Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n1,Oh no.,Ann,fear,negative,0,0,1,1,"00:00:01,000","00:00:02,000"\n',
    )
    expect(run('emoverse-data', '--meld', 'meld.csv', '--all', '--weights', 'MSA=0', '--output', 'made')).toMatch(
      /1 records[\s\S]*MER .*1 {2}Fear\. 1/,
    )
    expect(JSON.parse(readFileSync(join(folder, 'made/emt_data_second.json'), 'utf8'))).toHaveLength(1)
    expect(fails('emoverse-sft', '--model', 'base', '--datasett', 'x')).toMatch(
      /no option --datasett; did you mean --dataset\?/,
    )
    expect(fails('emoverse', 'sft', '--dataset', 'x')).toMatch(/Say which model/)
    expect(fails('emoverse', 'sft', '--model', 'base', '--stages', 'a.yaml', '--epochs', '1')).toMatch(
      /epochs would be said again/,
    )
    expect(fails('emoverse', 'data', '--meld', 'meld.csv', '--weights', 'MER')).toMatch(/--weights takes name=number/)
    expect(fails('emoverse', 'infer', '--model', 'base', '--infer_backend', 'pt')).toMatch(
      /--infer_backend has no effect[\s\S]*--val-dataset/,
    )
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
    ['name: x\n', /data is no file/],
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
