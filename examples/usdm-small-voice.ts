/** The Voicebox of usdm-small.ts, on real voices. */
import { readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import * as vt from 'voxtorch'
import * as usdm from 'voxtorch/usdm'

export interface VoiceboxSettings {
  /** Its size; it has as many units as there are. */
  model: vt.UnitVoiceboxConfig
  recipe: Partial<usdm.VoiceboxRecipe>
  maxSteps: number
  /** Evaluations and guidance with which clips of the test are made. */
  steps: number
  guidance: number
  /** Spectrograms that are drawn of each clip, whose mean is the middle of what it may make. */
  draws: number
  /** Fraction of a clip that is the prompt. */
  promptShare: number
}

/** Units of the clips of `real/train` and `real/test`, and a Voicebox in `voicebox/model` that was trained on the first. */
export async function trainVoicebox(
  out: string,
  extractor: vt.UnitExtractor,
  { model: size, recipe, maxSteps }: VoiceboxSettings,
): Promise<{ steps: number; parameters: number }> {
  const list = async (split: string) =>
    usdm.prepareVoicebox({
      ...{ extractor, data: join(out, 'real', split), name: 'fillets', split, output: join(out, 'filelists') },
      extract: { progress: true },
    })
  const train = await list('train')
  await list('test')
  using model = vt.UnitVoicebox.fromConfig({ ...size, nTokens: extractor.units }, { seed: recipe.seed ?? 0 })
  const { globalStep } = await usdm.trainUnitVoicebox({
    ...{ model, recipe, train: train.file, outputDir: join(out, 'voicebox') },
    args: { maxSteps, reportTo: ['jsonl'], progress: false },
    callbacks: [
      {
        onLog: ({ logs: { step, loss } }) =>
          console.log(`voicebox, step ${step}: loss ${(loss as number | undefined)?.toFixed(4)}`),
      },
    ],
  })
  return { steps: globalStep, parameters: model.parameters().reduce((sum, value) => sum + value.numel(), 0) }
}

export interface MelError {
  clips: number
  /**
   * Mean absolute difference of the log-mel spectrogram from the recording's, in nepers: of its units, and of the same shuffled. Of
   * the mean of several that are drawn, since each of them is one of many that are as likely.
   */
  units: number
  shuffled: number
  /** The same of the first of them alone, as speech is made. */
  unitsDrawn: number
  shuffledDrawn: number
}

/** A clip of the test as it was recorded, made of its units, and made of its units in another order. */
export interface Resaid {
  name: string
  recorded: Float32Array
  made: Float32Array
  shuffled: Float32Array
}

/** Continue the beginning of each test clip (or of some), and compare with the recording; returns audio of the first few. */
export async function melErrors(
  out: string,
  nTokens: number,
  { steps, guidance, draws, promptShare }: VoiceboxSettings,
  heard: number,
  most = Number.POSITIVE_INFINITY,
): Promise<{ error: MelError; clips: Resaid[] }> {
  using model = await vt.UnitVoicebox.fromPretrained(join(out, 'voicebox', 'model'))
  model.eval()
  const lines = (await readFile(join(out, 'filelists', 'fillets', 'test.txt'), 'utf8')).trimEnd().split('\n')
  const records = lines.map((line, i) => usdm.parseVoiceboxLine(line, 'test.txt', i + 1))
  const all = { windowFrames: 100_000, dropShare: 0, contextShare: 0 }
  const dataset = new usdm.VoiceboxDataset({ length: records.length, get: (i) => records[i]! }, { nTokens, draws: all })
  const sums = { units: 0, shuffled: 0, unitsDrawn: 0, shuffledDrawn: 0 }
  let frames = 0
  const clips: Resaid[] = []
  const vocoder = new usdm.GriffinLimVocoder()
  for (const [i, { audio, units }] of records.entries()) {
    if (i === most) break
    const { mel: recorded, units: own, bands } = await dataset.get(i)
    const begin = Math.floor(promptShare * own.length)
    // The prompt's units stay, as its spectrogram does.
    const others = usdm.frameUnits(new vt.Random(i).shuffle([...units]))
    others.set(own.subarray(0, begin))
    await vt.scope(async () => {
      const mel = vt.tensor(recorded, { shape: [1, bands, own.length] })
      const prompt = mel.narrow(2, 0, begin).expand([draws, bands, begin])
      const of = (ids: Int32Array) => {
        const units = vt.tensor(BigInt64Array.from(ids, BigInt), { shape: [1, ids.length] }).expand([draws, ids.length])
        return model.generate({ units, prompt, steps, guidance, seed: i })
      }
      const [made, shuffled] = [await of(own), await of(others)]
      const off = (other: vt.Tensor) =>
        vt.scope(() => {
          const rest = own.length - begin
          const difference = model.denormalize(other).sub(model.denormalize(mel)).narrow(2, begin, rest)
          return difference.abs().mean([1]).sum().item<number>()
        })
      const first = (all: vt.Tensor) => all.narrow(0, 0, 1)
      sums.units += off(made.mean([0], true))
      sums.shuffled += off(shuffled.mean([0], true))
      sums.unitsDrawn += off(first(made))
      sums.shuffledDrawn += off(first(shuffled))
      frames += own.length - begin
      if (clips.length === heard) return
      const sound = async (mel: vt.Tensor) =>
        (await (await vocoder.forward({ mel: model.denormalize(mel) })).waveform.flatten().data()) as Float32Array
      clips.push({
        name: basename(audio, '.wav'),
        ...{ recorded: await sound(mel), made: await sound(first(made)), shuffled: await sound(first(shuffled)) },
      })
    })
  }
  const means = Object.fromEntries(Object.entries(sums).map(([name, sum]) => [name, sum / frames])) as typeof sums
  return { error: { clips: Math.min(most, records.length), ...means }, clips }
}
