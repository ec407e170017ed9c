import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import { flagOf, missingOption } from '../../../kit/options.js'
import { USDM_OPTIONS } from '../configuration/arguments.js'
import { PREPARE_SETTINGS } from '../configuration/settings.js'

const { model, modelCacheDir, units } = USDM_OPTIONS

/** Options for a folder of TextGrids. They have no effect when sequences are only packed. */
const INTERLEAVING = ['unitFolder', 'model', 'modelCacheDir', 'units', 'segmentUnits', 'onBadRecord', 'compat'] as const

export const prepare = commandRule({
  name: 'prepare',
  summary: 'Make packed rows of interleaved text and speech from aligned words and units, for USDM pre-training.',
  details: `  voxtorch usdm units --data LibriTTS/dev-clean --model-cache-dir CACHE --transcripts
  voxtorch usdm prepare --data LibriTTS/dev-clean-textgrid --output ustm --model mistralai/Mistral-7B-v0.1 --model-cache-dir CACHE

--data is a folder of TextGrids as the Montreal Forced Aligner writes them, with a tier 'words'; the units are <name>_unit.txt in
--unit-folder. Writes data_epoch0.txt …, one sequence per line, and part0.txt, rows of packed sequences. These are stages 2 and 3 of
the original. If --data is a folder with data_epoch0.txt …, or files of sequences, they are only packed (stage 3); from a folder,
--epochs limits the number of files. Stage 4 of the original is not needed.`,
  options: {
    data: {
      type: 'strings',
      help: 'folder of TextGrids, folder of sequences to pack, or files of sequences',
      placeholder: 'path',
      aliases: ['data_path'],
    },
    ...PREPARE_SETTINGS.options,
    ...{ model: { ...model, default: 'mistralai/Mistral-7B-v0.1' }, modelCacheDir, units },
  },
  originalOptions: {
    train_dataset_path: {
      takesValue: 'several',
      reason: 'pretrain reads the rows directly: pass them to its --data',
    },
    validation_dataset_path: {
      takesValue: 'several',
      reason: 'pretrain reads the rows directly: pass them to its --valid',
    },
    cache_path: { takesValue: true, reason: 'files are read in place, without a copy' },
  },
  async run(args, _files, ignored) {
    const { data = [], output, units: count, epochs, maxLength, seed } = args
    const [first, ...more] = data
    if (first === undefined) {
      if (ignored.length === 0) throw missingOption('data', 'the folder of TextGrids', 'DIR')
      console.log('Nothing to do: training reads the rows as they are')
      return 0
    }
    if (output === undefined) throw missingOption('output', 'the folder to write rows to', 'DIR')
    const { statSync } = await import('node:fs')
    const { join } = await import('node:path')
    const { numberedFiles, packUstm, prepareUstm } = await import('../pretraining/prepare.js')
    const isFolder = statSync(first, { throwIfNoEntry: false })?.isDirectory() === true
    if (isFolder && more.length > 0) {
      throw new ConfigError(`--data: expected one folder, got ${data.length} paths.`, { argument: 'data' })
    }
    const packable = isFolder ? await numberedFiles(first, 'data_epoch') : data
    if (packable.length > 0) {
      for (const name of INTERLEAVING) {
        if (args[name] === undefined) continue
        throw new ConfigError(
          `${flagOf(name)}: expected with a folder of TextGrids, got sequences in ${first}, which are only packed. Leave it out.`,
          { argument: name },
        )
      }
      if (epochs !== undefined && (!isFolder || epochs > packable.length)) {
        const most = isFolder ? `at most ${packable.length}, the number of files in ${first}` : 'no --epochs with files'
        throw new ConfigError(`--epochs: expected ${most}, got ${epochs}.`, { argument: 'epochs' })
      }
      const packed = join(output, 'part0.txt')
      const files = packable.slice(0, epochs)
      const { rows, tooLong } = await packUstm(files, packed, defined({ capacity: maxLength, seed }))
      const left = tooLong > 0 ? `; dropped ${tooLong} sequences that are too long` : ''
      console.log(`${packed}: ${rows} rows of ${files.length} ${files.length === 1 ? 'file' : 'files'}${left}`)
      return 0
    }
    const { usdmTokenizerOfArguments } = await import('../configuration/apply.js')
    const tokenizer = await usdmTokenizerOfArguments(
      { ...args, model: args.model ?? 'mistralai/Mistral-7B-v0.1' },
      count,
    )
    const { packed, rows, sequences, tooShort, tooLong, badRecords, badRecordErrors } = await prepareUstm({
      ...PREPARE_SETTINGS.fromOptions(args),
      ...{ textGrids: first, output, tokenizer },
    })
    const left = [
      tooShort > 0 && `${tooShort} with fewer than three words`,
      tooLong > 0 && `${tooLong} that are too long`,
      badRecords > 0 && `${badRecords} that cannot be used, first error: ${badRecordErrors[0]?.message}`,
    ].filter(Boolean)
    const out = left.length > 0 ? `; dropped ${left.join('; ')}` : ''
    console.log(`${packed}: ${rows} rows, ${sequences} sequences per epoch${out}`)
    return 0
  },
})
