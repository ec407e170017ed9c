import { execFile } from 'node:child_process'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { readNpy, saveNpy } from '../../../lib/files/index.js'
import { scope, type Tensor, tensor, UnitExtractor, writeWav } from '../../../lib/index.js'
import { type CommandRule, runCommand } from '../../../lib/kit/command.js'
import type { AudioFramesInWindows } from '../../../lib/models/units/unit-extractor.js'
import { finetune } from '../../../lib/systems/usdm/commands/finetune.js'
import { preprocess } from '../../../lib/systems/usdm/commands/preprocess.js'
import { preview } from '../../../lib/systems/usdm/commands/preview.js'
import { units } from '../../../lib/systems/usdm/commands/units.js'
import { voiceboxPreprocess } from '../../../lib/systems/usdm/commands/voicebox-preprocess.js'
import { parseVoiceboxLine, UsdmTokenizer } from '../../../lib/systems/usdm/index.js'
import { fixture, fixturePath, tensorsOf } from '../../helpers.js'
import { PATIENCE } from '../../patience.js'
import { byteTokenizer, tinyNetwork } from './tiny.js'
import { chirp, UNITS } from './tiny-parts.js'

// The original's command lines, on a model cache as the original has it.

const root = fileURLToPath(new URL('../../..', import.meta.url))
const home = mkdtempSync(join(tmpdir(), 'voxtorch-usdm-data-commands-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))
const at = (name: string) => join(home, name)
const read = (name: string) => readFileSync(at(name), 'utf8')

const turns = (dialog: number, count: number) => Array.from({ length: count }, (_, i) => `${i}_${i % 2}_d${dialog}|${i % 2}|{AH0}|Turn ${i}.|none`) // biome-ignore format: one line
const said = { train: [...turns(1, 3), ...turns(2, 2)], test: turns(3, 2) }

beforeAll(async () => {
  mkdirSync(at('cache'))
  copyFileSync(fixturePath('models/units-fairseq.pt'), at('cache/xlsr2_1b_v2.pt'))
  await saveNpy(at('cache/kmeans_10k.npy'), tensorsOf(await fixture('models/units'), 'units', 'in').centroids as Tensor)
  await byteTokenizer(at('base'), UNITS)
  using network = tinyNetwork(await UsdmTokenizer.fromPretrained(at('base')))
  await network.save(at('base'))
  for (const [part, lines] of Object.entries(said)) {
    writeFileSync(at(`${part}_phone.txt`), lines.join('\n'))
    for (const [i, line] of lines.entries()) {
      const [id] = line.split('|') as [string]
      const path = at(`dailytalk/data/${id.split('_d')[1]}/${id}`)
      mkdirSync(dirname(path), { recursive: true })
      await scope(() => writeWav(`${path}.wav`, tensor(chirp(0.15 + 0.02 * i, i)), { sampleRate: 16_000 }))
      writeFileSync(`${path}.normalized.txt`, line.split('|')[3] as string)
    }
  }
})

/** What a command prints. */
async function printed(rule: CommandRule, line: string): Promise<string> {
  const spies = [vi.spyOn(console, 'log'), vi.spyOn(console, 'error')].map((spy) => spy.mockImplementation(() => {}))
  const quiet = vi.spyOn(process.stderr, 'write').mockImplementation(() => true)
  try {
    expect(await runCommand(`voxtorch usdm ${rule.name}`, rule, line.trim().split(/\s+/))).toBe(0)
    return spies.flatMap(({ mock }) => mock.calls.flat()).join('\n')
  } finally {
    for (const spy of [...spies, quiet]) spy.mockRestore()
  }
}
const example = (name: string, line: string) =>
  promisify(execFile)(process.execPath, ['--import', 'tsx', `examples/${name}.ts`, ...line.trim().split(/\s+/)], { cwd: root }) // biome-ignore format: one line

it(
  "dailytalk_single_turn.py's, train_sft.py's, and the examples that have their names",
  async () => {
    const made = (output: string) => `--data_dir ${at('dailytalk/data')} --model_cache_dir ${at('cache')}
    --pretrained_model_name_or_path ${at('base')} --train_metadata_path ${at('train_phone.txt')}
    --test_metadata_path ${at('test_phone.txt')} --output_path ${at(output)} --layer 2`
    expect(await printed(preprocess, made('made'))).toBe(
      `${at('made/train.txt')}: 3 examples from 2 dialogs\n${at('made/test.txt')}: 1 examples from 1 dialogs`,
    )
    expect(existsSync(at('cache/tokenizer.json'))).toBe(true)
    await example('usdm-preprocess', made('other'))
    for (const part of ['train', 'test']) expect(read(`other/${part}.txt`)).toBe(read(`made/${part}.txt`))

    const shown = await printed(preview, `${at('made/test.txt')} --model ${at('cache')}`)
    expect(shown).toMatch(/<\|correspond\|>⟦turn 0\.\n⟧### Agent\n⟦turn 1\.<\|correspond\|>(<\|unit\d+\|>(×\d+)?)+\n⟧/)
    const clips = ['0_0', '1_1'].map((turn) => at(`dailytalk/data/3/${turn}_d3.wav`))
    await printed(preview, `${at('made/test.txt')} --model ${at('cache')} --html ${at('page.html')} --clips ${clips}`)
    expect(read('page.html').match(/<mark>|data:audio\/wav;base64,UklGR/g)).toHaveLength(2 + 2)
    await expect(printed(preview, `${at('made/test.txt')} --model ${at('cache')} --example 2`)).rejects.toThrow(/--example: expected 1 to 1, .*, got 2/) // biome-ignore format: one line

    const trained = (
      output: string,
    ) => `--data_path_train ${at('made/train.txt')} --data_path_test ${at('made/test.txt')}
    --model_cache_dir ${at('cache')} --output_dir ${at(output)} --model_name_or_path ${at('base')} --dtype float32
    --learning_rate 1e-3 --num_train_epochs 2 --train_batch_size 2 --gradient_accumulation_steps 1 --seed 5`
    const { globalStep } = JSON.parse(await printed(finetune, trained('command'))) as { globalStep: number }
    expect(globalStep).toBe(4)
    await example('usdm-sft', trained('example'))
    for (const file of ['model/model.safetensors', 'results.json']) expect(read(`example/${file}`)).toBe(read(`command/${file}`)) // biome-ignore format: one line
  },
  3 * PATIENCE,
)

it('units and preprocess say how many clips were heard in windows, and how often two windows differ', async () => {
  const windows = `--window-seconds 0.1 --overlap-seconds 0.04 --model_cache_dir ${at('cache')} --layer 2`
  using extractor = await UnitExtractor.fromPretrained({
    ...{ encoder: at('cache/xlsr2_1b_v2.pt'), kmeans: at('cache/kmeans_10k.npy'), layer: 2 },
    ...{ windowSeconds: 0.1, overlapSeconds: 0.04 },
  })
  /** What is said of these clips. */
  const said = async (paths: readonly string[]) => {
    const told: AudioFramesInWindows[] = []
    for (const path of paths) await extractor.extract(path, { onWindows: (heard) => told.push(heard) })
    const sum = (key: 'compared' | 'different') => told.reduce((all, heard) => all + heard[key], 0)
    return `${told.length} clips were encoded in windows, which changes some units: ${sum('different')} of ${sum('compared')} units in the overlaps differ`
  }
  const clips = [...turns(1, 3), ...turns(2, 2), ...turns(3, 2)].map((line) => {
    const [id] = line.split('|') as [string]
    return at(`dailytalk/data/${id.split('_d')[1]}/${id}.wav`)
  })
  const line = await said(clips)
  expect(line).toMatch(/^7 clips .* \d+ of [1-9]\d* units/)
  const made = await printed(
    units,
    `--data ${at('dailytalk/data')} --output ${at('cut-units')} ${windows} --no-transcripts`,
  )
  expect(made).toBe(`${at('cut-units')}: units of 7 clips, 7 extracted by this run\n${line}`)
  const original = `--pretrained_model_name_or_path ${at('base')} --train_metadata_path ${at('train_phone.txt')} --test_metadata_path ${at('test_phone.txt')}`
  const examples = await printed(
    preprocess,
    `--data ${at('dailytalk/data')} ${original} --output ${at('cut')} ${windows}`,
  )
  expect(examples.split('\n')).toEqual([
    expect.stringContaining('train.txt'),
    expect.stringContaining('test.txt'),
    line,
  ])
  writeFileSync(
    at('cut.jsonl'),
    clips
      .slice(0, 2)
      .map((wav, turn) => JSON.stringify({ dialog: 'a', turn, speaker: String(turn), text: 'Hi.', wav }))
      .join('\n'),
  )
  const own = await printed(
    preprocess,
    `--data ${at('cut.jsonl')} --model ${at('base')} --output ${at('jsonl/cut.txt')} ${windows}`,
  )
  expect(own.split('\n').at(-1)).toBe(await said(clips.slice(0, 2)))
})

it("stage1.py's, and voicebox/preprocess.py's", async () => {
  using extractor = await UnitExtractor.fromPretrained({
    ...{ encoder: at('cache/xlsr2_1b_v2.pt'), kmeans: at('cache/kmeans_10k.npy'), layer: 2 },
  })
  const cache = `--model_cache_dir ${at('cache')} --layer 2`
  const clips = (readdirSync(at('dailytalk'), { recursive: true, encoding: 'utf8' }) as string[]).filter((path) => path.endsWith('.wav')) // biome-ignore format: one line
  expect(clips).toHaveLength(7)
  const wanted = new Map<string, string>()
  for (const path of clips) wanted.set(path, (await extractor.extract(at(`dailytalk/${path}`))).join(' '))

  expect(await printed(units, `--data_path ${at('dailytalk')} ${cache} --transcripts`)).toBe(
    `${at('dailytalk')}: units of 7 clips, 7 extracted by this run\n${at('dailytalk')}: 7 transcripts`,
  )
  for (const [path, own] of wanted) {
    expect(read(`dailytalk/${path.replace('.wav', '_unit.txt')}`)).toBe(own)
    expect(read(`dailytalk/${path.replace('.wav', '.txt')}`)).toMatch(/^turn \d$/)
  }
  // The original's line, word for word, with the model cache in the environment.
  const again = `${at('dailytalk')}: units of 7 clips, 0 extracted by this run`
  process.env.MODEL_CACHE_DIR = at('cache')
  const verbatim = await printed(units, `--data_path ${at('dailytalk')} --layer 2`)
  delete process.env.MODEL_CACHE_DIR
  expect(verbatim).toBe(`${again}\n${at('dailytalk')}: 7 transcripts`)
  expect(await printed(units, `--data_path ${at('dailytalk')} ${cache} --no-transcripts`)).toBe(again)
  // An encoder that is named needs no cache, and the environment's is asked for what is not.
  const named = `--data_path ${at('dailytalk')} --no-transcripts`
  process.env.MODEL_CACHE_DIR = at('nowhere')
  try {
    await expect(printed(units, `${named} --layer 2`)).rejects.toThrow(
      /--encoder: expected a path or the file .*nowhere.xlsr2_1b_v2\.pt/,
    )
    expect(await printed(units, `${named} ${cache}`)).toBe(again)
  } finally {
    delete process.env.MODEL_CACHE_DIR
  }
  const lost = runCommand('voxtorch usdm units', units, ['--data_path', at('dailytalk')])
  await expect(lost).rejects.toThrow(/--encoder: expected a path or the file xlsr2_1b_v2\.pt in --model-cache-dir/)

  const lists = `--data_name small --data_path ${at('dailytalk')} --data_split train --output ${at('filelists')} ${cache}`
  expect(await printed(voiceboxPreprocess, lists)).toBe(`${at('filelists/small/train.txt')}: 7 clips`)
  const records = read('filelists/small/train.txt').trimEnd().split('\n').map((line, i) => parseVoiceboxLine(line, 'list', i + 1)) // biome-ignore format: one line
  expect(new Map(records.map(({ audio, units: own }) => [audio.slice(at('dailytalk/').length), own.join(' ')]))).toEqual(wanted) // biome-ignore format: one line

  const fit = `--data ${at('dailytalk')} --fit 3 --encoder ${at('cache/xlsr2_1b_v2.pt')} --layer 2 --kmeans ${at('3.npy')}`
  expect(await printed(units, fit)).toBe(`${at('3.npy')}: 3 centroids of 16 values`)
  expect(((await readNpy(at('3.npy'))) as Tensor).shape).toEqual([3, 16])
  await expect(printed(units, `${fit} --transcripts`)).rejects.toThrow(/--transcripts: expected without --fit/)
  await expect(printed(units, `--data ${at('dailytalk')} ${cache} --max-frames 5`)).rejects.toThrow(/--max-frames: expected with --fit/) // biome-ignore format: one line
  await expect(printed(units, `--data ${at('dailytalk')}`)).rejects.toThrow(/--encoder: expected a path or the file xlsr2_1b_v2\.pt in --model-cache-dir/) // biome-ignore format: one line
})
