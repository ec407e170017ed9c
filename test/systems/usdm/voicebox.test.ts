import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import {
  BIGVGAN_MEL,
  ConfigError,
  DataError,
  melSpectrogram,
  randn,
  scope,
  type Tensor,
  tensor,
  UnitExtractor,
  UnitVoicebox,
  Wav2Vec2,
  type Wav2Vec2Config,
  writeWav,
} from '../../../lib/index.js'
import { runCommand } from '../../../lib/kit/command.js'
import { voiceboxTrain } from '../../../lib/systems/usdm/commands/voicebox-train.js'
import { frameUnits } from '../../../lib/systems/usdm/data/frames.js'
import {
  parseVoiceboxLine,
  prepareVoicebox,
  trainUnitVoicebox,
  VoiceboxDataset,
  type VoiceboxRecord,
  voiceboxCollate,
  voiceboxRecipe,
  writeVoiceboxFilelist,
} from '../../../lib/systems/usdm/index.js'
import { readVoiceboxConfig } from '../../../lib/systems/usdm/published/voicebox-config.js'
import { drawSample } from '../../../lib/systems/usdm/voicebox/dataset.js'
import { expectClose, settledTensors } from '../../helpers.js'
import { makeTones } from './tones.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-usdm-voicebox-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

beforeAll(() => makeTones(folder))

const tiny = { nFeats: 8, nTokens: 10, embeddingDim: 6, hiddenSize: 16, intermediateSize: 24, numAttentionHeads: 4, numHiddenLayers: 2, convposWidth: 5, convposGroups: 4 } // biome-ignore format: one line

describe('units of frames', () => {
  it("are the original's", () => {
    expect([...frameUnits([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])]).toEqual([0, 0, 1, 2, 2, 3, 3, 4, 4, 5, 6, 6, 7, 7, 8, 8, 9])
    expect([49, 50, 99, 100, 149].map((n) => frameUnits(new Int32Array(n)).length)).toEqual([84, 86, 170, 172, 256])
    const many = Int32Array.from({ length: 300 }, (_, i) => i)
    expect([frameUnits(many)[220], frameUnits(many.map((unit) => 299 - unit))[220]]).toEqual([127, 299 - 128])
  })
})

describe('file lists', () => {
  it('are read as they are written, with durations', async () => {
    const file = join(folder, 'written.txt')
    await writeVoiceboxFilelist(file, [{ audio: 'a|b.wav', units: Int32Array.of(5, 5, 7) }])
    expect(readFileSync(file, 'utf8')).toBe('a|b.wav|5 5 7|1 1 1\n')
    expect(parseVoiceboxLine('a|b.wav|5 5 7|1 1 1', 'f', 3)).toEqual({
      audio: 'a|b.wav',
      units: Int32Array.of(5, 5, 7),
      place: 'f, line 3',
    })
    expect([...parseVoiceboxLine('c.wav|5 7|2 1\r', 'f', 1).units]).toEqual([5, 5, 7])
  })

  it.each([
    ['a.wav|1 2', /expected audio\|units\|durations/],
    ['|1 2|1 1', /expected a path/],
    ['a.wav|1 x|1 1', /expected integers in units, got "x" at position 2/],
    ['a.wav|1 2|1 -1', /expected integers in durations, got "-1" at position 2/],
    ['a.wav|1 2|1', /as many durations as units, 2, got 1/],
    ['a.wav||', /expected units, got none/],
    ['a.wav|1|999999999', /one hour, got 999999999/],
  ])('refuse %j', (line, message) => {
    expect(() => parseVoiceboxLine(line, 'list.txt', 9)).toThrow(DataError)
    expect(() => parseVoiceboxLine(line, 'list.txt', 9)).toThrow(message)
    expect(() => parseVoiceboxLine(line, 'list.txt', 9)).toThrow(/list\.txt, line 9/)
  })

  const xlsr: Wav2Vec2Config = {
    ...{ hiddenSize: 8, numHiddenLayers: 2, numAttentionHeads: 2, intermediateSize: 12, convDim: new Array(7).fill(4) },
    ...{ numConvPosEmbeddings: 4, numConvPosEmbeddingGroups: 2, doStableLayerNorm: true, convBias: true },
    featExtractNorm: 'layer',
  }

  it('are made of a folder of clips, once for each, in the same bytes', async () => {
    const clips = join(folder, 'corpus')
    mkdirSync(join(clips, 'deep'), { recursive: true })
    for (const [i, name] of ['a.wav', 'deep/b.wav', 'deep/c.wav'].entries()) {
      await scope(() => writeWav(join(clips, name), randn([2000 + 700 * i]).mul(0.1), { sampleRate: 16_000 }))
    }
    const extractor = await UnitExtractor.fromPretrained({
      encoder: Wav2Vec2.fromConfig(xlsr, { seed: 2 }).eval(),
      kmeans: randn([10, 8]),
      layer: 2,
    })
    const given = { extractor, data: clips, name: 'small', split: 'train', output: join(folder, 'lists') }
    const made = await prepareVoicebox(given)
    expect(made).toEqual({ file: join(folder, 'lists/small/train.txt'), clips: 3, badRecords: 0, badRecordErrors: [] })
    const bytes = readFileSync(made.file, 'utf8')
    const records = bytes.trimEnd().split('\n').map((line, i) => parseVoiceboxLine(line, made.file, i + 1)) // biome-ignore format: one line
    expect(records.map(({ audio }) => audio).sort()).toEqual(['a.wav', 'deep/b.wav', 'deep/c.wav'].map((name) => join(clips, name))) // biome-ignore format: one line
    for (const { audio, units } of records) expect(units).toEqual(await extractor.extract(audio))
    const extract = vi.spyOn(extractor, 'extractBatch')
    await prepareVoicebox(given)
    expect(extract).not.toHaveBeenCalled()
    expect(readFileSync(made.file, 'utf8')).toBe(bytes)

    writeFileSync(join(clips, 'deep/bad.wav'), 'no sound')
    await expect(prepareVoicebox(given)).rejects.toThrow(/bad\.wav/)
    const skipped = await prepareVoicebox({ ...given, onBadRecord: 'skip' })
    expect([skipped.clips, skipped.badRecords, skipped.badRecordErrors[0]?.message]).toEqual([3, 1, expect.stringMatching(/bad\.wav/)]) // biome-ignore format: one line
    await expect(prepareVoicebox({ ...given, split: '../out' })).rejects.toThrow(ConfigError)
    await expect(prepareVoicebox({ ...given, data: join(folder, 'none') })).rejects.toThrow(ConfigError)
    extractor.dispose()
  })
})

describe('samples', () => {
  const units = Int32Array.from({ length: 20 }, (_, i) => i % 10)
  const all = { windowFrames: 1378, dropShare: 0, contextShare: 0 }
  const dataset = (draws: object = {}, record: Partial<VoiceboxRecord> = {}) =>
    new VoiceboxDataset(
      { length: 200, get: () => ({ audio: 'train3.wav', units: new Int32Array(19).map((_, i) => i % 3), ...record }) },
      { nTokens: 10, nFeats: 8, audioRoot: folder, draws: { ...all, ...draws } },
    )

  it('have the spectrogram that vocoders read, normalised', async () => {
    const { mel, units: frames, visible } = await dataset().get(0)
    expect([frames.length, visible]).toEqual([32, [0, 0]])
    const { samples } = await import('../../../lib/index.js').then(({ readAudio }) => readAudio(join(folder, 'train3.wav'))) // biome-ignore format: one line
    const { sampleRate, ...recipe } = BIGVGAN_MEL
    const wanted = await melSpectrogram(samples.flatten().narrow(0, 0, 256 * 32), sampleRate, { ...recipe, nMels: 8 })
    expectClose(tensor(mel, { shape: [8, 32] }), wanted.add(5.5419).div(2.1575), 1e-6)
  })

  it('are a stretch where the clip is longer, and the same for the same seed, epoch and place', async () => {
    const whole = await dataset().get(5, 1)
    const cut = dataset({ windowFrames: 12 })
    const starts = new Set<number>()
    for (let epoch = 0; epoch < 16; epoch += 1) {
      const sample = await cut.get(5, epoch)
      expect(sample.units.length).toBe(12)
      const from = Array.from({ length: 20 }, (_, at) => at).filter((at) => sample.mel[3] === whole.mel[at + 3])
      expect(from.length).toBe(1)
      const at = from[0] as number
      for (let band = 0; band < 8; band += 1) {
        const own = sample.mel.subarray(band * 12, band * 12 + 12)
        expect(own).toEqual(whole.mel.subarray(band * 32 + at, band * 32 + at + 12))
      }
      expect(sample.units).toEqual(whole.units.slice(at, at + 12))
      starts.add(at)
    }
    expect(Math.max(...starts)).toBeLessThan(20)
    expect(starts.size).toBeGreaterThan(4)
    expect(await cut.get(5, 7)).toEqual(await cut.get(5, 7))
    expect((await cut.get(6, 7)).noiseSeed).not.toBe((await cut.get(5, 7)).noiseSeed)
  })

  it('lose units and context as often as the recipe says', async () => {
    const published = voiceboxRecipe()
    let [dropped, seen, times] = [0, 0, 0]
    const count = 4000
    for (let i = 0; i < count; i += 1) {
      const sample = drawSample(published, 32, i % 500, Math.floor(i / 500))
      const [from, to] = sample.visible
      dropped += sample.dropped ? 1 : 0
      seen += to > from ? 1 : 0
      times += sample.time
      if (sample.dropped) expect(to).toBe(from)
      // 32 frames less 70 to 100 %.
      expect(to - from).toBeLessThanOrEqual(9)
      expect(from >= 0 && to <= 32 && sample.time >= 0 && sample.time < 1).toBe(true)
    }
    // Five standard deviations; of those with context the shortest stretches round to nothing (1 in 9.6).
    const within = (found: number, share: number) =>
      expect(Math.abs(found - share * count)).toBeLessThan(5 * Math.sqrt(count * share * (1 - share)))
    within(dropped, 0.2)
    within(seen, 0.8 * 0.7 * (1 - 1 / 9.6))
    expect(Math.abs(times / count - 0.5)).toBeLessThan(5 / Math.sqrt(12 * count))
    // What is dropped has no unit, and no frame of it is seen.
    const sample = await dataset({ dropShare: 1, contextShare: 1 }).get(0)
    expect([new Set(sample.units), sample.visible]).toEqual([new Set([10]), [0, 0]])
  })

  it('become batches in which nobody changes what another is', async () => {
    await scope(async () => {
      const short = new VoiceboxDataset(
        { length: 1, get: () => ({ audio: 'train0.wav', units: new Int32Array(10) }) },
        {
          nTokens: 10,
          nFeats: 8,
          audioRoot: folder,
          draws: { ...all, contextShare: 1, leastMasked: 0.5, mostMasked: 0.5 },
        },
      )
      const [a, b] = [await dataset().get(1), await short.get(0)]
      const batch = voiceboxCollate(10)([a, b])
      expect([batch.lengths, batch.asked, batch.mel.shape]).toEqual([[32, 17], 32 + 17 - 8, [2, 8, 32]])
      expect(batch.units.select(0, 1).narrow(0, 17, 15).eq(10).all().item()).toBe(true)
      const alone = voiceboxCollate(10)([b])
      for (const name of ['mel', 'noise'] as const) {
        const row = batch[name].select(0, 1)
        expect(row.narrow(1, 0, 17).equal(alone[name].select(0, 0))).toBe(true)
        expect(row.narrow(1, 17, 15).abs().sum().item()).toBe(0)
      }
      expect(batch.visible.select(0, 1).sum().item()).toBe(8)

      // Their loss together is the mean over all frames that are asked for.
      const model = UnitVoicebox.fromConfig(tiny, { seed: 1 }).eval()
      const lossOf = async (samples: (typeof a)[]) => {
        const { asked, ...inputs } = voiceboxCollate(10)(samples)
        return { asked, loss: (await model.loss(inputs)).loss.item() as number }
      }
      const [both, first, second] = [await lossOf([a, b]), await lossOf([a]), await lossOf([b])]
      const mean = (first.loss * first.asked + second.loss * second.asked) / both.asked
      expect(Math.abs(both.loss - mean) / mean).toBeLessThan(1e-5)
    })
  })

  it('refuse units that the Voicebox has not, clips that are not theirs, and clips that are none', async () => {
    const wrong = (record: Partial<VoiceboxRecord>) => dataset({}, { place: 'list.txt, line 4', ...record }).get(0)
    await expect(wrong({ units: Int32Array.of(3, 10) })).rejects.toThrow(
      /line 4: .*train3\.wav: expected units from 0 to 9, .*, got 10/,
    )
    await expect(wrong({ units: new Int32Array(90) })).rejects.toThrow(
      /expected a clip of about 1\.8 s, the length of its units, got 0\.4 s/,
    )
    await expect(wrong({ audio: 'missing.wav' })).rejects.toThrow(/line 4: .*missing\.wav/)
    await expect(wrong({ units: new Int32Array(0) })).rejects.toThrow(DataError)
    expect(() => new VoiceboxDataset({ length: 1, get: () => ({ audio: '', units }) }, { draws: { mostMasked: 0 } })).toThrow(/mostMasked/) // biome-ignore format: one line
  })
})

describe('training', () => {
  const given = (outputDir: string, args: object = {}) => ({
    model: UnitVoicebox.fromConfig(tiny, { seed: 3 }),
    train: join(folder, 'train.txt'),
    audioRoot: folder,
    outputDir: join(folder, outputDir),
    recipe: { learningRate: 3e-3, maxGradNorm: 1, batchSize: 5, logSteps: 10 },
    args: { maxSteps: 60, progress: false, reportTo: ['jsonl'] as const, saveStrategy: 'no' as const, ...args },
  })
  const losses = (run: string): number[] =>
    readFileSync(join(folder, run, 'metrics.jsonl'), 'utf8')
      .trimEnd()
      .split('\n')
      .flatMap((line) => (JSON.parse(line).loss === undefined ? [] : [JSON.parse(line).loss as number]))

  it('makes the loss fall, leaves no tensors, and saves the network', async () => {
    const options = given('falls')
    const before = await settledTensors()
    const results = await trainUnitVoicebox(options)
    expect(await settledTensors()).toBe(before)
    const all = losses('falls')
    expect(all.length).toBe(6)
    expect(all.at(-1)).toBeLessThan(0.6 * (all[0] as number))
    expect([results.globalStep, results.samples.train, results.valid]).toEqual([60, 10, null])
    const saved = await UnitVoicebox.fromPretrained(join(folder, 'falls/model'))
    for (const [name, value] of Object.entries(saved.stateDict())) {
      expect(value.equal(options.model.stateDict()[name] as Tensor), name).toBe(true)
    }
  })

  it.each(['bf16', 'fp16'] as const)('runs in %s, near to float32', async (precision) => {
    const options = given(precision, { maxSteps: 20 })
    await trainUnitVoicebox({ ...options, recipe: { ...options.recipe, precision } })
    await trainUnitVoicebox(given(`float32 ${precision}`, { maxSteps: 20 }))
    const [half, single] = [losses(precision), losses(`float32 ${precision}`)]
    expect(half).toHaveLength(2)
    half.forEach((loss, i) => void expect(Math.abs(loss / (single[i] as number) - 1)).toBeLessThan(0.1))
    expect(half).not.toEqual(single)
  })

  it('makes the first step as Adam does, clipped to 0.2', async () => {
    const options = given('adam', { maxSteps: 1 })
    const begin = new Map(Object.entries(options.model.stateDict()).map(([name, value]) => [name, value.clone()]))
    await trainUnitVoicebox({ ...options, recipe: { batchSize: 5, learningRate: 1e-3 } })
    // At the first step Adam moves by the rate times the gradient's sign wherever it is far above epsilon.
    const moved = scope(() => options.model.stateDict()['estimator.proj_out.bias']?.sub(begin.get('estimator.proj_out.bias') as Tensor).abs().max().item() as number) // biome-ignore format: one line
    expect(Math.abs(moved / 1e-3 - 1)).toBeLessThan(1e-3)
  })

  it.each([
    [{ train: join(folder, 'nothing.txt') }, /nothing\.txt/],
    [{ train: [] }, /train/],
    [{ model: null as never }, /UnitVoicebox/],
    [{ recipe: { droppShare: 1 } as never }, /got 'droppShare'; did you mean 'dropShare'/],
    [{ recipe: { precision: 'fp8' as never } }, /precision/],
    [{ audioroot: '.' } as never, /audioroot/],
  ])('refuses %o', async (changes, message) => {
    await expect(trainUnitVoicebox({ ...given('wrong'), ...changes })).rejects.toThrow(message)
  })
})

describe("the original's configuration", () => {
  const published = {
    data: { train_filelist_path: 'train.txt', valid_filelist_path: 'valid.txt', test_filelist_path: 'test.txt', token_sr: 50, n_feats: 8, n_fft: 1024, hop_length: 256, win_length: 1024, sampling_rate: 22050, n_tokens: 10, mean: -5.5419, std: 2.1575, mel_fmin: 0, mel_fmax: 8000 }, // biome-ignore format: one line
    model: { embedding_dim: 6, hidden_size: 16, intermediate_size: 24, num_attention_heads: 4, num_hidden_layers: 2, convpos_width: 5, convpos_groups: 4, convpos_depth: 2, attention_dropout: 0, activation_dropout: 0.1, hidden_dropout: 0, solver: 'euler', sigma_min: 0.0001 }, // biome-ignore format: one line
    train: { test_size: 4, n_epochs: 10000, batch_size: 8, p_uncond: 0.2, p_drop: 0.3, r_min: 0.7, r_max: 1, num_workers: 2, val_batch_size: 16, learning_rate: 1e-4, seed: 37, save_every: 1, out_size_second: 16, fp16_run: true, reverse_step: 50 }, // biome-ignore format: one line
  }
  const write = (config: object) => {
    const file = join(folder, 'config.json')
    writeFileSync(file, JSON.stringify(config))
    return file
  }

  it('is the recipe that holds without it', async () => {
    const { model, recipe, train, valid } = await readVoiceboxConfig(write(published))
    expect([train, valid, model.nTokens, model.hiddenSize, model.convposWidth]).toEqual(['train.txt', 'valid.txt', 10, 16, 5]) // biome-ignore format: one line
    expect(voiceboxRecipe(recipe)).toEqual({ ...voiceboxRecipe(), evalBatchSize: 16 })
    const flat = await readVoiceboxConfig(write({ ...published.model, n_feats: 8 }))
    expect([flat.model.nFeats, flat.recipe]).toEqual([8, {}])
  })

  it.each([
    [{ train: { p_dropp: 1 } }, /train\.p_dropp: expected a known key/],
    [{ data: { hop_length: 300 } }, /data\.hop_length: expected 256, got 300/],
    [{ train: { seed: 'x' } }, /train\.seed: expected a number, got "x"/],
    [{ extra: 1 }, /extra: expected the sections/],
    [{ model: 7 }, /model: expected an object, got 7/],
  ])('names what is wrong with %o', async (changes, message) => {
    const file = write({ ...published, ...(changes as object) })
    await expect(readVoiceboxConfig(file)).rejects.toThrow(ConfigError)
    await expect(readVoiceboxConfig(file)).rejects.toThrow(message)
  })

  it("trains, with the original's spellings", async () => {
    const said: string[] = []
    const spies = [vi.spyOn(console, 'log'), vi.spyOn(console, 'error')].map((spy) => spy.mockImplementation((line: string) => void said.push(line))) // biome-ignore format: one line
    const lists = { train_filelist_path: join(folder, 'train.txt'), valid_filelist_path: join(folder, 'valid.txt') }
    const config = write({ ...published, data: { ...published.data, ...lists } })
    const more = ['--audio-root', folder, '--max-steps', '2', '-mc', 'cache', '--data_cache_dir', 'cache', '--save-steps', '2'] // biome-ignore format: one line
    try {
      expect(await runCommand('voxtorch usdm voicebox-train', voiceboxTrain, ['-c', config, '-l', join(folder, 'command'), ...more])).toBe(0) // biome-ignore format: one line
    } finally {
      for (const spy of spies) spy.mockRestore()
    }
    expect(said.slice(0, 2)).toEqual([expect.stringMatching(/^-mc has no effect/), expect.stringMatching(/^--data_cache_dir has no effect/)]) // biome-ignore format: one line
    expect(said.at(-1)).toMatch(/^2 steps, mean loss .*, validation loss \d/)
    expect((await UnitVoicebox.fromPretrained(join(folder, 'command/model'))).config.nTokens).toBe(10)
    said.length = 0
    const others = [
      '--config',
      config,
      '--log_dir',
      join(folder, 'spelt'),
      '--model_cache_dir',
      'cache',
      '-dc',
      'cache',
    ]
    const again = [vi.spyOn(console, 'log'), vi.spyOn(console, 'error')].map((spy) => spy.mockImplementation((line: string) => void said.push(line))) // biome-ignore format: one line
    try {
      expect(await runCommand('voxtorch usdm voicebox-train', voiceboxTrain, [...others, '--audio-root', folder, '--max-steps', '1', '--save-steps', '1'])).toBe(0) // biome-ignore format: one line
    } finally {
      for (const spy of again) spy.mockRestore()
    }
    expect(said.slice(0, 2)).toEqual([expect.stringMatching(/^--model_cache_dir has no effect/), expect.stringMatching(/^-dc has no effect/)]) // biome-ignore format: one line
    expect(said.at(-1)).toMatch(/^1 steps, mean loss .*spelt\/model/)
    expect((await UnitVoicebox.fromPretrained(join(folder, 'spelt/model'))).config.nTokens).toBe(10)
    await expect(runCommand('voxtorch usdm voicebox-train', voiceboxTrain, [])).rejects.toThrow(/--train FILE/)
  })
})
