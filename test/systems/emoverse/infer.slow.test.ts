import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { writeSwiftDataset } from '../../../lib/systems/emoverse/index.js'
import { PATIENCE } from '../../patience.js'
import { asked, tinyEmoVerse } from './tiny.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-emoverse-infer-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const linesOf = (file: string) =>
  readFileSync(file, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))

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
    const [file = ''] = readdirSync(join(folder, 'answers')).filter((name) => name.endsWith('.jsonl'))
    const said = run('emoverse', 'score', `answers/${file}`, '--html', 'scores.html', '--json', 'scores.json')
    expect(said).toMatch(/6 results[\s\S]*accuracy/)
    expect(readFileSync(join(folder, 'scores.html'), 'utf8')).toMatch(/^<!doctype html>[\s\S]*Emotion[\s\S]*true \/ predicted/)
    expect(fails('emoverse', 'score', `answers/${file}`, '--mode', 'strict')).toMatch(/task: expected sentiment, emotion or causes in mode 'strict'/)
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
      /known option, got --datasett. Did you mean --dataset\?/,
    )
    expect(fails('emoverse', 'sft', '--dataset', 'x')).toMatch(/--model: expected a model, got none/)
    expect(fails('emoverse', 'sft', '--model', 'base', '--stages', 'a.yaml', '--epochs', '1')).toMatch(
      /expected all settings in the stage files, got epochs as well/,
    )
    expect(fails('emoverse', 'data', '--meld', 'meld.csv', '--weights', 'MER')).toMatch(
      /--weights: expected name=number, got "MER"/,
    )
    expect(fails('emoverse', 'infer', '--model', 'base', '--infer_backend', 'pt')).toMatch(
      /--infer_backend has no effect[\s\S]*--val-dataset/,
    )
  })
})
