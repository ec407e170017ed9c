import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import { flagOf } from '../../../kit/options.js'
import type { Device } from '../../../tensor/index.js'
import { USDM_OPTIONS } from '../configuration/arguments.js'

const { modelCacheDir, encoder, kmeans, layer, batchSeconds, windowSeconds, overlapSeconds, device, progress } =
  USDM_OPTIONS

export const units = commandRule({
  name: 'units',
  summary: 'Makes units of speech of all sound files below a folder, or the centroids that units come from.',
  details: `  voxtorch usdm units --data LibriTTS/dev-clean --model-cache-dir CACHE --transcripts
  voxtorch usdm units --data clips --fit 500 --encoder whisper-base --layer 4 --kmeans 500.npy

Writes <name>_unit.txt for each clip, whole numbers with blanks between them, 50 a second; a run that was ended goes on. With --fit
it writes the file of --kmeans instead: that many centroids of the clips' frames.`,
  options: {
    data: { kind: 'text', help: 'the folder of sound files', value: 'dir', aliases: ['data_path'] },
    output: { kind: 'text', help: 'the folder to write', value: 'dir', preset: 'that of --data' },
    transcripts: {
      kind: 'flag',
      help: 'writes <name>.txt of each <name>.normalized.txt too, for an aligner, as stage 1 of the original does',
      preset: 'where there are such files',
    },
    ...{ modelCacheDir, encoder, kmeans, layer, batchSeconds, windowSeconds, overlapSeconds, device, progress },
    fit: { kind: 'whole', help: 'how many centroids to find', value: 'n' },
    maxFrames: { kind: 'whole', help: 'with --fit: frames that are kept, drawn evenly', preset: 200000 },
    seed: { kind: 'whole', help: 'with --fit: of what is drawn', preset: 0 },
  },
  async run(given) {
    const { data, fit, maxFrames, seed } = given
    if (data === undefined) throw new ConfigError('Say where the clips are: --data DIR', { argument: 'data' })
    const { output = data } = given
    if (fit !== undefined) {
      if (given.kmeans === undefined || given.encoder === undefined || given.layer === undefined) {
        throw new ConfigError('--fit needs --encoder, --layer, and --kmeans: the file to write', { argument: 'fit' })
      }
      for (const name of ['output', 'transcripts', 'windowSeconds', 'overlapSeconds'] as const) {
        if (given[name] !== undefined) throw new ConfigError(`${flagOf(name)} is not for --fit`, { argument: name })
      }
      const { soundFiles } = await import('../../../models/units/unit-folder.js')
      const { fitUnits } = await import('../../../models/units/fit.js')
      const { ProgressBar } = await import('../../../data/progress.js')
      const clips = (await soundFiles('usdm units', data)).map((path) => join(data, path))
      using bar = given.progress ? new ProgressBar({ total: clips.length, label: 'frames', unit: 'clip' }) : undefined
      using found = await fitUnits({
        ...{ encoder: given.encoder, layer: given.layer, clips, clusters: fit },
        ...defined({ maxFrames, seed, device: given.device as Device | undefined }),
        onClip: ({ frames }) => bar?.tick(1, { frames }),
      })
      await found.save(given.kmeans)
      console.log(`${given.kmeans}: ${found.clusters} centroids of ${found.dim} values`)
      return 0
    }
    for (const [name, value] of Object.entries({ maxFrames, seed })) {
      if (value !== undefined) throw new ConfigError(`${flagOf(name)} is for --fit`, { argument: name })
    }
    const { extractUnits } = await import('../../../models/units/unit-folder.js')
    const { countedWindows, unitExtractorOfArguments } = await import('../configuration/apply.js')
    using extractor = await unitExtractorOfArguments(given)
    const windows = countedWindows()
    const done = await extractUnits(
      extractor,
      { input: data, output },
      { ...defined({ batchSeconds: given.batchSeconds, progress: given.progress }), onWindows: windows.onWindows },
    )
    console.log(`${output}: units of ${done.clips} clips, of which ${done.extracted} were extracted now`)
    const told = windows.line()
    if (told !== null) console.log(told)
    const { transcripts = hasTexts(data) } = given
    if (transcripts) {
      const { writeUstmTranscripts } = await import('../pretraining/transcripts.js')
      console.log(`${output}: ${await writeUstmTranscripts(data, output)} transcripts`)
    }
    return 0
  },
})

const hasTexts = (folder: string): boolean =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' }).some((path) => path.endsWith('.normalized.txt'))
