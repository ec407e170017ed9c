import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import { flagOf, missingOption } from '../../../kit/options.js'
import type { Device } from '../../../tensor/index.js'
import { USDM_OPTIONS } from '../configuration/arguments.js'

const { modelCacheDir, encoder, kmeans, layer, batchSeconds, windowSeconds, overlapSeconds, device, progress } =
  USDM_OPTIONS

export const units = commandRule({
  name: 'units',
  summary: 'Encode the speech of all audio files in a folder as discrete units, or fit the centroids of the units.',
  details: `  voxtorch usdm units --data LibriTTS/dev-clean --model-cache-dir CACHE --transcripts
  voxtorch usdm units --data clips --fit 500 --encoder whisper-base --layer 4 --kmeans 500.npy

Writes <name>_unit.txt for each clip: integers separated by spaces, 50 per second. An interrupted run continues. With --fit it writes
the file of --kmeans instead, with that many centroids of the clips' frames.`,
  options: {
    data: { type: 'string', help: 'folder of audio files', placeholder: 'dir', aliases: ['data_path'] },
    output: { type: 'string', help: 'folder to write', placeholder: 'dir', default: 'that of --data' },
    transcripts: {
      type: 'boolean',
      help: 'also writes <name>.txt from each <name>.normalized.txt, for an aligner, as stage 1 of the original does',
      default: 'on if there are such files',
    },
    ...{ modelCacheDir, encoder, kmeans, layer, batchSeconds, windowSeconds, overlapSeconds, device, progress },
    fit: { type: 'integer', help: 'number of centroids to fit', placeholder: 'n' },
    maxFrames: { type: 'integer', help: 'with --fit: maximum number of sampled frames', default: 200000 },
    seed: { type: 'integer', help: 'with --fit: random seed', default: 0 },
  },
  async run(args) {
    const { data, fit, maxFrames, seed } = args
    if (data === undefined) throw missingOption('data', 'the folder of audio files', 'DIR')
    const { output = data } = args
    if (fit !== undefined) {
      if (args.kmeans === undefined || args.encoder === undefined || args.layer === undefined) {
        throw new ConfigError(
          '--fit: expected --encoder, --layer and --kmeans (the file to write) with it, got it without.',
          { argument: 'fit' },
        )
      }
      for (const name of ['output', 'transcripts', 'windowSeconds', 'overlapSeconds'] as const) {
        if (args[name] === undefined) continue
        throw new ConfigError(`${flagOf(name)}: expected without --fit, got both. Leave out one of the two.`, {
          argument: name,
        })
      }
      const { audioFiles } = await import('../../../models/units/unit-folder.js')
      const { fitUnits } = await import('../../../models/units/fit.js')
      const { ProgressBar } = await import('../../../data/progress.js')
      const clips = (await audioFiles('usdm units', data)).map((path) => join(data, path))
      using bar = args.progress ? new ProgressBar({ total: clips.length, label: 'frames', unit: 'clip' }) : undefined
      using found = await fitUnits({
        ...{ encoder: args.encoder, layer: args.layer, clips, clusters: fit },
        ...defined({ maxFrames, seed, device: args.device as Device | undefined }),
        onClip: ({ frames }) => bar?.tick(1, { frames }),
      })
      await found.save(args.kmeans)
      console.log(`${args.kmeans}: ${found.clusters} centroids of ${found.dim} values`)
      return 0
    }
    for (const [name, value] of Object.entries({ maxFrames, seed })) {
      if (value === undefined) continue
      throw new ConfigError(`${flagOf(name)}: expected with --fit, got it without. Add --fit N, or leave it out.`, {
        argument: name,
      })
    }
    const { extractUnits } = await import('../../../models/units/unit-folder.js')
    const { countedWindows, unitExtractorOfArguments } = await import('../configuration/apply.js')
    using extractor = await unitExtractorOfArguments(args)
    const windows = countedWindows()
    const done = await extractUnits(
      extractor,
      { input: data, output },
      { ...defined({ batchSeconds: args.batchSeconds, progress: args.progress }), onWindows: windows.onWindows },
    )
    console.log(`${output}: units of ${done.clips} clips, ${done.extracted} extracted by this run`)
    const summary = windows.line()
    if (summary !== null) console.log(summary)
    const { transcripts = hasTexts(data) } = args
    if (transcripts) {
      const { writeUstmTranscripts } = await import('../pretraining/transcripts.js')
      console.log(`${output}: ${await writeUstmTranscripts(data, output)} transcripts`)
    }
    return 0
  },
})

const hasTexts = (folder: string): boolean =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' }).some((path) => path.endsWith('.normalized.txt'))
