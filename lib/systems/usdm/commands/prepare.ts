import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import { flagOf } from '../../../kit/options.js'
import { USDM_OPTIONS } from '../configuration/arguments.js'

const { model, modelCacheDir, units } = USDM_OPTIONS

/** What a folder of TextGrids is told, and packing has no use for. */
const INTERLEAVING = ['unitFolder', 'model', 'modelCacheDir', 'units', 'segmentUnits', 'onBadRecord', 'compat'] as const

export const prepare = commandRule({
  name: 'prepare',
  summary: 'Makes packed rows of text and speech in turns, which USDM is pre-trained on, from aligned words and units.',
  details: `  voxtorch usdm units --data LibriTTS/dev-clean --model-cache-dir CACHE --transcripts
  voxtorch usdm prepare --data LibriTTS/dev-clean-textgrid --output ustm --model mistralai/Mistral-7B-v0.1 --model-cache-dir CACHE

--data is a folder of TextGrids as the Montreal Forced Aligner writes them, with a tier 'words'; the units are <name>_unit.txt in
--unit-folder. Writes data_epoch0.txt …, a sequence on each line, and part0.txt, rows of packed sequences. These are the original's
stages 2 and 3; a folder with data_epoch0.txt …, or files of sequences, are packed alone (stage 3): of a folder as many as --epochs
says, else all. There is nothing to do for its stage 4.`,
  options: {
    data: {
      kind: 'texts',
      help: 'the folder of TextGrids, or of sequences to pack, or files of these',
      value: 'path',
      aliases: ['data_path'],
    },
    unitFolder: { kind: 'text', help: 'the folder of units', value: 'dir', preset: '--data without -textgrid' },
    output: { kind: 'text', help: 'the folder to write', value: 'dir', aliases: ['output_path'] },
    ...{ model: { ...model, preset: 'mistralai/Mistral-7B-v0.1' }, modelCacheDir, units },
    epochs: { kind: 'whole', help: 'how often each utterance is divided and told anew', preset: 1, aliases: ['epoch'] },
    maxLength: { kind: 'whole', help: 'tokens of a row; longer sequences are left out', preset: 8192 },
    segmentUnits: { kind: 'whole', help: 'units of a segment, about', preset: 500 },
    seed: { kind: 'whole', help: 'of all that is drawn', preset: 43 },
    onBadRecord: { kind: ['stop', 'skip'], help: 'what an utterance that cannot be used does', preset: 'stop' },
    compat: { kind: ['published'], help: 'a place is drawn anew for each word that a segment might begin with' },
  },
  foreign: {
    train_dataset_path: {
      takesValue: 'several',
      reason: 'pretrain reads the rows themselves: give them to its --data',
    },
    validation_dataset_path: {
      takesValue: 'several',
      reason: 'pretrain reads the rows themselves: give them to its --valid',
    },
    cache_path: { takesValue: true, reason: 'files are read where they are, without a copy' },
  },
  async run(given, _files, ignored) {
    const { data = [], unitFolder, output, units: count, epochs, maxLength, segmentUnits, seed } = given
    const { onBadRecord, compat } = given
    const [first, ...more] = data
    if (first === undefined) {
      if (ignored.length === 0) throw new ConfigError('Say where the TextGrids are: --data DIR', { argument: 'data' })
      console.log('Nothing to do: rows are trained on as they are')
      return 0
    }
    if (output === undefined) throw new ConfigError('Say where rows go: --output DIR', { argument: 'output' })
    const { statSync } = await import('node:fs')
    const { join } = await import('node:path')
    const { numberedFiles, packUstm, prepareUstm } = await import('../pretraining/prepare.js')
    const isFolder = statSync(first, { throwIfNoEntry: false })?.isDirectory() === true
    if (isFolder && more.length > 0) throw new ConfigError('Give one folder', { argument: 'data' })
    const packable = isFolder ? await numberedFiles(first, 'data_epoch') : data
    if (packable.length > 0) {
      for (const name of INTERLEAVING) {
        if (given[name] === undefined) continue
        throw new ConfigError(`${flagOf(name)} is for a folder of TextGrids: ${first} is packed alone`, {
          argument: name,
        })
      }
      if (epochs !== undefined && (!isFolder || epochs > packable.length)) {
        const what = isFolder ? `${first} has ${packable.length}` : 'files are packed as they are given'
        throw new ConfigError(`--epochs ${epochs}: ${what}`, { argument: 'epochs' })
      }
      const packed = join(output, 'part0.txt')
      const files = packable.slice(0, epochs)
      const { rows, tooLong } = await packUstm(files, packed, defined({ capacity: maxLength, seed }))
      const left = tooLong > 0 ? `; left out ${tooLong} sequences that are too long` : ''
      console.log(`${packed}: ${rows} rows of ${files.length} ${files.length === 1 ? 'file' : 'files'}${left}`)
      return 0
    }
    const { usdmTokenizerOfArguments } = await import('../configuration/apply.js')
    const tokenizer = await usdmTokenizerOfArguments(
      { ...given, model: given.model ?? 'mistralai/Mistral-7B-v0.1' },
      count,
    )
    const { packed, rows, sequences, tooShort, tooLong, badRecords, badRecordErrors } = await prepareUstm({
      ...{ textGrids: first, output, tokenizer },
      ...defined({ units: unitFolder, epochs, maxLength, segmentUnits, seed, onBadRecord, compat }),
    })
    const left = [
      tooShort > 0 && `${tooShort} of fewer than three words`,
      tooLong > 0 && `${tooLong} that are too long`,
      badRecords > 0 && `${badRecords} that cannot be used, the first: ${badRecordErrors[0]?.message}`,
    ].filter(Boolean)
    const out = left.length > 0 ? `; left out ${left.join('; ')}` : ''
    console.log(`${packed}: ${rows} rows of ${sequences} sequences in each epoch${out}`)
    return 0
  },
})
