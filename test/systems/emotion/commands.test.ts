import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, describe, expect, it, vi } from 'vitest'
import {
  arange,
  ConfigError,
  DataError,
  LanguageBind,
  openVideo,
  preprocessVideo,
  scope,
  writeWav,
} from '../../../lib/index.js'
import { runCommand } from '../../../lib/kit/command.js'
import { readOptions } from '../../../lib/kit/options.js'
import { samplesOf } from '../../../lib/models/whisper/options.js'
import { Whisper } from '../../../lib/models/whisper/whisper.js'
import { ecfScore } from '../../../lib/systems/emotion/commands/ecf-score.js'
import { label } from '../../../lib/systems/emotion/commands/label.js'
import { train } from '../../../lib/systems/emotion/commands/train.js'
import {
  emotionDataOfArguments,
  emotionTrainingOfArguments,
  pairTrainingOfArguments,
  pointerTrainingOfArguments,
  unusedEmotionArguments,
  withConfigFile,
} from '../../../lib/systems/emotion/configuration/apply.js'
import { EMOTION_OPTIONS, EMOTION_ORIGINAL_OPTIONS } from '../../../lib/systems/emotion/configuration/arguments.js'
import { emotionAnswers } from '../../../lib/systems/emotion/evaluation/evaluate.js'
import { softmaxOf } from '../../../lib/systems/emotion/evaluation/metrics.js'
import { languageBindEncoders } from '../../../lib/systems/emotion/network/languagebind-encoders.js'
import { EmotionClassifier } from '../../../lib/systems/emotion/network/network.js'
import { EmotionFbankEncoder } from '../../../lib/systems/emotion/network/voice-encoder.js'
import { fixture } from '../../helpers.js'
import { PATIENCE } from '../../patience.js'
import { nodeAv } from '../../vision/node-av.js'
import { tinyLanguageBind } from './tiny.js'

afterEach(() => vi.restoreAllMocks())
const folder = () => mkdtempSync(join(tmpdir(), 'voxtorch-emotion-cli-'))
const read = (...argv: string[]) => readOptions('emotion', EMOTION_OPTIONS, argv, EMOTION_ORIGINAL_OPTIONS)

describe('voxtorch emotion train', () => {
  it('takes the names of TrainingArguments, and says which have no effect', () => {
    const { options, ignored } = read(
      ...[
        '--num_train_epochs=10',
        '--per_device_train_batch_size',
        '4',
        '--gradient_accumulation_steps=16',
        '--bf16=true',
      ],
      ...[
        '--evaluation_strategy=epoch',
        '--save_total_limit=1',
        '--learning_rate=5e-5',
        '--output_dir=x',
        '--remove_unused_columns=false',
      ],
    )
    expect(options).toEqual({ epochs: 10, batchSize: 4, accumulation: 16, bf16: true, learningRate: 5e-5, output: 'x' })
    expect(ignored.map(({ flag }) => flag)).toEqual([
      '--evaluation_strategy',
      '--save_total_limit',
      '--remove_unused_columns',
    ])
  })

  it('makes of them what trainEmotion is given', () => {
    const { options } = read(
      ...[
        '--data',
        'meld',
        '--fusion',
        'gated',
        '--context-layers',
        '0',
        '--tune',
        'lora',
        '--lora-rank',
        '8',
        '--learning-rate',
        '0.01',
      ],
    )
    expect(emotionDataOfArguments(options)).toEqual(['meld', {}])
    expect(emotionTrainingOfArguments(options)).toMatchObject({
      ...{
        outputDir: 'emotion',
        config: { fusion: 'gated', context: null },
        tune: { r: 8 },
        recipe: { headLearningRate: 0.01 },
      },
    })
    const published = emotionTrainingOfArguments({ compat: 'published', learningRate: 5e-5 })
    expect(published).toMatchObject({
      ...{
        compat: 'published',
        config: { fusion: 'concat', headBias: false, context: null },
        recipe: { encoderLearningRate: 5e-5 },
      },
    })
    // Encoders without a network, such as --audio fbank, could not say it.
    const onDevice = read('--device', 'cuda:1').options
    for (const made of [emotionTrainingOfArguments, pairTrainingOfArguments, pointerTrainingOfArguments])
      expect(made(onDevice)).toMatchObject({ device: 'cuda:1' })
    expect(emotionDataOfArguments({ data: 'x', compat: 'published' })[1]).toEqual({ splitBy: 'utterance' })
    expect(() => emotionDataOfArguments({})).toThrow(ConfigError)
  })

  it('trains on the device that is named, also of encoders without networks, and on no other in silence', async () => {
    const dir = folder()
    await scope(() => writeWav(join(dir, 'a.wav'), arange(8000).mul(0.2).sin(), { sampleRate: 16000 }))
    const lines = ['joy', 'anger'].map((emotion, d) =>
      JSON.stringify({ dialog: d, text: 'so', emotion, audio: 'a.wav', split: d === 0 ? 'train' : 'valid' }),
    )
    writeFileSync(join(dir, 'x.jsonl'), `${lines.join('\n')}\n`)
    const words = ['--data', join(dir, 'x.jsonl'), '--audio', 'fbank', '--text', 'none', '--output', join(dir, 'run')]
    // A device without memory: that nothing can be computed there says that the head is there.
    const trained = runCommand('voxtorch emotion train', train, [...words, '--device', 'meta', '--no-progress'])
    await expect(trained).rejects.toThrow(/Meta tensors/)
    expect(readdirSync(join(dir, 'run'))).not.toContain('best')
  })

  it('has a file for each published experiment, of which all is known', async () => {
    const configs = fileURLToPath(new URL('../../../examples/configs/languagebind/', import.meta.url))
    const names = readdirSync(configs).filter((name) => name.startsWith('exp-'))
    expect(names.map((name) => name.slice(4, -5)).join(' ')).toBe('01 02 03 04 05 06 07-08 09 10 12')
    for (const name of names) {
      const { options, ignored } = await withConfigFile({ config: join(configs, name) })
      expect([...ignored, ...unusedEmotionArguments(options)], name).toEqual([])
      const isPairs = /09|10/.test(name)
      expect(options.pairs ?? false, name).toBe(isPairs)
      const { config, recipe, compat } = emotionTrainingOfArguments(options)
      expect([compat, recipe?.bf16, config?.context]).toEqual(['published', true, null])
      expect(emotionDataOfArguments({ ...options, data: 'x' })[1].splitBy).toBe(isPairs ? undefined : 'utterance')
      if (name.includes('07')) expect(config).toMatchObject({ fusion: 'frames', compat: 'published', headBias: true })
      if (!isPairs) continue
      const pairs = pairTrainingOfArguments(options)
      expect((pairs.recipe?.batchSize ?? 0) * (pairs.recipe?.accumulation ?? 0)).toBe(16)
      expect(pairs.tune).toEqual(name.includes('09') ? 'full' : expect.objectContaining({ r: 16, bias: 'all' }))
    }
  })

  it('says what has no effect beside the rest', () => {
    const flags = (...argv: string[]) => unusedEmotionArguments(read(...argv).options).map(({ flag }) => flag)
    expect(flags('--lora-rank', '8', '--encoder-learning-rate', '1', '--text', 'none', '--text-names')).toEqual([
      ...['--lora-rank', '--encoder-learning-rate', '--text-names'],
    ])
    expect(flags('--context-layers', '0', '--causal', '--hidden-size', '8')).toEqual(['--causal', '--hidden-size'])
    expect(flags('--context-layers', '0', '--fusion', 'gated', '--hidden-size', '8')).toEqual([])
    expect(flags('--tune', 'lora', '--lora-rank', '8', '--encoder-learning-rate', '1', '--causal')).toEqual([])
  })

  it('reads a file of options, below what the command line says', async () => {
    const file = join(folder(), 'x.yaml')
    writeFileSync(
      file,
      'data: ecf\nnum_train_epochs: 3\nloraTargets: [q_proj, k_proj]\nbf16: true\nlogging_steps: 5\nseed: 7\n',
    )
    const { options, ignored } = await withConfigFile({ config: file, seed: 9 })
    expect(options).toEqual({
      config: file,
      data: 'ecf',
      epochs: 3,
      loraTargets: ['q_proj', 'k_proj'],
      bf16: true,
      seed: 9,
    })
    expect(ignored.map(({ flag }) => flag)).toEqual(['--logging_steps'])
    writeFileSync(file, 'epoch: 3\n')
    await expect(withConfigFile({ config: file })).rejects.toThrow(/known option, got --epoch. Did you mean --epochs/)
    writeFileSync(file, 'config: y.yaml\n')
    await expect(withConfigFile({ config: file })).rejects.toThrow(/config: expected no `config` option/)
    writeFileSync(file, 'data: {a: 1}\n')
    await expect(withConfigFile({ config: file })).rejects.toThrow(/data: expected a single value or a list/)
  })

  it(
    'trains on sounds without any network, reports, and labels',
    async () => {
      const dir = folder()
      const sine = (frequency: number) =>
        scope(() =>
          arange(4000)
            .mul((2 * Math.PI * frequency) / 16000)
            .sin()
            .mul(0.3),
        )
      const lines: string[] = []
      for (let i = 0; i < 24; i += 1) {
        const isHigh = i % 2 === 0
        const wave = sine((isHigh ? 900 : 200) + 5 * i)
        await writeWav(join(dir, `${i}.wav`), wave, { sampleRate: 16000 })
        const split = i < 16 ? 'train' : i < 20 ? 'valid' : 'test'
        lines.push(
          JSON.stringify({
            dialog: i,
            text: 'the same',
            emotion: isHigh ? 'joy' : 'sadness',
            audio: `${i}.wav`,
            split,
          }),
        )
      }
      writeFileSync(join(dir, 'x.jsonl'), `${lines.join('\n')}\n`)
      const said = vi.spyOn(console, 'log').mockImplementation(() => {})
      const output = join(dir, 'run')
      const argv = [
        '--data',
        join(dir, 'x.jsonl'),
        '--text',
        'none',
        '--audio',
        'fbank',
        '--output',
        output,
        '--context-layers',
        '0',
      ]
      expect(
        await runCommand('voxtorch emotion train', train, [
          ...argv,
          '--epochs',
          '6',
          '--learning-rate',
          '0.01',
          '--no-progress',
        ]),
      ).toBe(0)
      expect(said.mock.calls.flat().join('\n')).toMatch(/16 dialogs for training, 4 for validation, 4 for test/)
      expect(JSON.parse(readFileSync(join(output, 'results.json'), 'utf8')).test.accuracy).toBe(1)
      expect(readFileSync(join(output, 'report.html'), 'utf8')).toContain('data-audio="data:audio/wav;base64,')
      const labeled = join(dir, 'out.jsonl')
      const page = join(dir, 'page.html')
      await runCommand('voxtorch emotion label', label, [
        join(dir, 'x.jsonl'),
        '--model',
        join(output, 'best'),
        '--output',
        labeled,
        '--report',
        page,
      ])
      const rows = readFileSync(labeled, 'utf8')
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line))
      expect(rows.slice(20).map(({ emotion }) => emotion)).toEqual(['joy', 'sadness', 'joy', 'sadness'])
      expect(readFileSync(page, 'utf8')).toContain('24 dialogs')
    },
    PATIENCE,
  )
})

describe.skipIf(!nodeAv)('voxtorch emotion label with films, of npm node-av', () => {
  const film = async (dir: string, name: string) => {
    const { tensors } = await fixture(name.startsWith('h264') ? 'vision/videos-decoded' : 'vision/videos-sounding')
    const path = join(dir, `${name}.${name.startsWith('h264') ? 'mp4' : 'mkv'}`)
    writeFileSync(path, tensors[`${name}/file/bytes`]?.dataSync() as Uint8Array)
    return path
  }
  const saved = async (dir: string) => {
    const model = new EmotionClassifier({ sizes: { audio: 512 }, labels: ['joy', 'sadness'] })
    await model.save(join(dir, 'best'), [new EmotionFbankEncoder() as never])
    return join(dir, 'best')
  }

  it.each(['h264-sound', 'matroska-sound'])(
    'hears %s, and shows it',
    async (name) => {
      const dir = folder()
      const path = await film(dir, name)
      vi.spyOn(console, 'log').mockImplementation(() => {})
      // In place of a network that knows words: one that hears what Whisper hears.
      const heard: number[][] = []
      const whisper = {
        parameters: () => [arange(1)],
        transcribe: async (file: string) => {
          const samples = await samplesOf(whisper as never, file)
          heard.push([samples.size(0), Number(samples.abs().max().item())])
          const words = [
            { text: ' Well.', start: 0, end: 0.2 },
            { text: ' So.', start: 0.2, end: 0.4 },
          ]
          return { segments: [{ words }] }
        },
      }
      vi.spyOn(Whisper, 'fromPretrained').mockResolvedValue(whisper as never)
      const [output, page] = [join(dir, 'out.jsonl'), join(dir, 'page.html')]
      const asked = [path, '--model', await saved(dir), '--output', output, '--report', page]
      await runCommand('voxtorch emotion label', label, asked)
      expect(heard.length).toBe(1)
      expect(heard[0]?.[0]).toBeGreaterThanOrEqual(12_800)
      expect(heard[0]?.[1]).toBeGreaterThan(0.2)
      const rows = readFileSync(output, 'utf8').trim().split('\n').map((line) => JSON.parse(line)) // biome-ignore format: one line
      expect(rows.map(({ text, start, end }) => [text, start, end])).toEqual([
        ['Well.', 0, 0.2],
        ['So.', 0.2, 0.4],
      ])
      const html = readFileSync(page, 'utf8')
      expect(html.match(/data-audio="data:audio\/wav;base64,/g)?.length).toBe(2)
      expect(html.match(/<image href="data:image\/png/g)?.length).toBe(2)
    },
    PATIENCE,
  )
})

it.skipIf(!nodeAv)(
  'voxtorch emotion label looks at a film through a encoder of LanguageBind (npm node-av)',
  async () => {
    const dir = folder()
    const { tensors } = await fixture('vision/videos-decoded')
    const film = join(dir, 'film.mp4')
    writeFileSync(film, tensors['h264-variable/file/bytes']?.dataSync() as Uint8Array)
    const bind = await tinyLanguageBind('video')
    const [encoder] = await languageBindEncoders({ video: bind }, ['video'])
    const labels = ['joy', 'sadness']
    const model = new EmotionClassifier({ sizes: { video: 6 }, labels })
    const best = join(dir, 'best')
    await model.save(best, [encoder as never])
    const data = join(dir, 'x.jsonl')
    const spans = [[1, 3], [0, 0.6], undefined] // biome-ignore format: one line
    const lines = spans.map((span) => JSON.stringify({ dialog: 1, text: 'so', video: 'film.mp4', ...(span && { start: span[0], end: span[1] }) })) // biome-ignore format: one line
    writeFileSync(data, `${lines.join('\n')}\n`)
    const [output, page] = [join(dir, 'out.jsonl'), join(dir, 'page.html')]
    vi.spyOn(console, 'log').mockImplementation(() => {})
    await runCommand('voxtorch emotion label', label, [data, '--model', best, '--output', output, '--report', page])
    const rows = readFileSync(output, 'utf8').trim().split('\n').map((line) => JSON.parse(line)) // biome-ignore format: one line
    // The vectors that LanguageBind itself gives of these frames.
    const whole = await LanguageBind.fromPretrained({ video: bind })
    await using opened = await openVideo(film)
    const frames = [[7, 9, 11, 13], [0, 1, 3, 5], [0, 6, 12, 19]] // biome-ignore format: one line
    const vectors: Float32Array[] = []
    for (const places of frames) {
      const clip = await preprocessVideo(await opened.frames(places), { size: 8 })
      const { video } = await whole.embed({ video: clip.unsqueeze(0) }, { useTemp: true })
      vectors.push((await video.flatten().data()) as Float32Array)
    }
    const utterances = frames.map((_, i) => ({ id: i + 1, text: 'so', speaker: '' }))
    const [answer] = await emotionAnswers(model.eval(), [
      { dialog: { id: '1', source: 'made', utterances }, labels: [-100, -100, -100], vectors: { video: vectors } },
    ])
    const wanted = answer?.logits.map((row) => softmaxOf(row)) as number[][]
    expect(new Set(wanted.map(([first]) => first)).size).toBe(3)
    for (const [i, { probabilities }] of rows.entries()) {
      for (const [k, name] of labels.entries()) expect(probabilities[name]).toBeCloseTo(wanted[i]?.[k] as number, 3)
    }
    expect(readFileSync(page, 'utf8').match(/<image href="data:image\/png/g)?.length).toBe(3)
  },
  PATIENCE,
)

describe('voxtorch ecf-score', () => {
  const conversation = {
    conversation_ID: 1,
    conversation: [{ utterance_ID: 1, text: 'a', speaker: 'A', emotion: 'joy' }],
    'emotion-cause_pairs': [['1_joy', '1']],
  }

  it('prints the lines of the official scorer', async () => {
    const dir = folder()
    for (const name of ['gold', 'pred'])
      writeFileSync(join(dir, `Subtask_2_${name}.json`), JSON.stringify([conversation]))
    const said = vi.spyOn(console, 'log').mockImplementation(() => {})
    const output = join(dir, 'scores.txt')
    await runCommand('voxtorch ecf-score', ecfScore, [
      join(dir, 'Subtask_2_pred.json'),
      '--gold',
      join(dir, 'Subtask_2_gold.json'),
      '--output',
      output,
    ])
    await runCommand('voxtorch ecf-score', ecfScore, [dir])
    expect(said.mock.calls[0]).toEqual(said.mock.calls[1])
    expect(readFileSync(output, 'utf8').split('\n')[5]).toMatch(/^weighted_f1:0\.99999/)
    await expect(runCommand('voxtorch ecf-score', ecfScore, [])).rejects.toThrow(ConfigError)
    await expect(runCommand('voxtorch ecf-score', ecfScore, ['/no/such.json'])).rejects.toThrow(DataError)
    await expect(runCommand('voxtorch ecf-score', ecfScore, [join(dir, 'Subtask_2_pred.json')])).rejects.toThrow(
      /--gold/,
    )
  })
})
