import { execFile } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, expect, it } from 'vitest'
import {
  EMOVERSE_SYSTEM,
  readResults,
  type SwiftRecord,
  writeSwiftDataset,
} from '../../../lib/systems/emoverse/index.js'
import { PATIENCE } from '../../patience.js'
import { asked, ppm, seeingEmoVerse, TINY_SEEING } from './tiny.js'

const home = mkdtempSync(join(tmpdir(), 'voxtorch-emoverse-scripts-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))

// The published scripts as they stand (https://github.com/liaolea/EmoVerse, MIT), at f1aaa0f and 4b53a50.
const stageScript = (model: string, data: string) => `CUDA_VISIBLE_DEVICES=1 \\
swift sft \\
  --model_type internvl2-4b \\
  --model_id_or_path ${model} \\
  --dataset ${data} \\
  --sft_type lora \\
  --output_dir output \\
  --system "You are an sentiment and emotion analysis expert." \\
  --num_train_epochs 2 \\
  --max_length 2048 \\
  --gradient_checkpointing true \\
  --batch_size 1 \\
  --gradient_accumulation_steps 8 \\
  --eval_steps 1000 \\
  --save_steps 500 \\
  --save_total_limit 3 \\
  --logging_steps 10 \\
  --acc_strategy sentence
`
const FIRST = stageScript('InternVL2-4B_model_path', 'emt_data_first.json')
const SECOND = stageScript('first_model_ckpt', 'emt_data_second.json')
const TEST = `CUDA_VISIBLE_DEVICES=0 swift infer \\
    --model_type internvl2-4b \\
    --model_id_or_path emoverse-4b \\
    --system "You are an sentiment and emotion analysis expert." \\
    --val_dataset sentiment_test_non_neg.json \\
    --max_length 2048
`

const main = fileURLToPath(new URL('../../../dist/cli/main.js', import.meta.url))
/** Runs a script in which `swift` gives way to `npx voxtorch`, as built. */
const run = (script: string) => {
  const own = script.replace(/\bswift (sft|infer)/, `'${process.execPath}' '${main}' emoverse-$1`)
  return promisify(execFile)('sh', ['-c', own], { cwd: home, maxBuffer: 1e8, timeout: PATIENCE })
}

it('the published scripts train and answer as they stand, in order, in one folder', async () => {
  // Tiles of 256 tokens each: 8 frames are the 2,048 of the published model.
  const sizes = { ...TINY_SEEING, forceImageSize: 448, visionConfig: { ...TINY_SEEING.visionConfig, imageSize: 448, patchSize: 14 }, llmConfig: { ...TINY_SEEING.llmConfig, maxPositionEmbeddings: 8192 } }
  using model = await seeingEmoVerse({ system: EMOVERSE_SYSTEM, initializerRange: 0.2, sizes: sizes as never })
  await model.save(join(home, 'InternVL2-4B_model_path'))
  writeFileSync(join(home, 'face.ppm'), ppm(28, 28, (x, y) => [8 * x, 8 * y, 100]))
  const frames = join(home, 'film')
  mkdirSync(frames)
  for (let i = 0; i < 9; i++) writeFileSync(join(frames, `${i}.ppm`), ppm(28, 28, () => [20 * i, i, 100]))
  const records = (count: number, media: Partial<SwiftRecord>) => asked(count).map((record) => ({ ...record, ...media }))
  await writeSwiftDataset(join(home, 'emt_data_first.json'), records(12, { images: ['face.ppm'] }))
  await writeSwiftDataset(join(home, 'emt_data_second.json'), records(10, { videos: ['film'] }))
  await writeSwiftDataset(join(home, 'sentiment_test_non_neg.json'), records(2, { videos: ['film'] }))
  const first = JSON.parse((await run(FIRST)).stdout)
  expect(first).toMatchObject({ model: 'output/model', stages: [{ name: 'stage-1', globalStep: 4 }] })
  symlinkSync('output/model', join(home, 'first_model_ckpt'))
  const adapter = (folder: string) => readFileSync(join(home, folder, 'stage-1/adapter/adapter_model.safetensors'))
  const before = adapter('output')
  const again = await run(SECOND)
  const second = JSON.parse(again.stdout)
  expect(again.stderr).toContain('output holds another training: this one is written to output/v1')
  expect(second).toMatchObject({ model: 'output/v1/model', stages: [{ samples: { train: 9, valid: 1 }, globalStep: 4 }] })
  expect(adapter('output').equals(before)).toBe(true)
  expect(adapter('output/v1').equals(before)).toBe(false)
  // Each once more gives what is there.
  expect(JSON.parse((await run(FIRST)).stdout)).toEqual(first)
  expect(JSON.parse((await run(SECOND)).stdout)).toEqual(second)
  expect(existsSync(join(home, 'output/v2'))).toBe(false)
  symlinkSync('output/v1/model', join(home, 'emoverse-4b'))
  const [question] = records(1, { videos: [frames] })
  expect((await model.encode(question as SwiftRecord, { answer: false })).inputIds.length).toBeGreaterThan(2048 + 100)
  await run(TEST)
  const [file] = readdirSync(join(home, 'infer_result'))
  const results = await readResults(join(home, 'infer_result', file as string))
  expect(results.map(({ label }) => label)).toEqual(['Pos.', 'Fear.'])
}) // biome-ignore format: long lines
