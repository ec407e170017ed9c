import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import { USDM_OPTIONS } from '../configuration/arguments.js'

const { model, modelCacheDir, units } = USDM_OPTIONS

export const prepare = commandRule({
  name: 'prepare',
  summary: 'Makes packed rows of text and speech in turns, which USDM is pre-trained on, from aligned words and units.',
  details: `  voxtorch usdm units --data LibriTTS/dev-clean --model-cache-dir CACHE --transcripts
  voxtorch usdm prepare --data LibriTTS/dev-clean-textgrid --output ustm --model mistralai/Mistral-7B-v0.1 --model-cache-dir CACHE

--data is a folder of TextGrids as the Montreal Forced Aligner writes them, with a tier 'words'; the units are <name>_unit.txt in
--unit-folder. Writes data_epoch0.txt …, a sequence on each line, and part0.txt, rows of packed sequences. These are the original's
stages 2 and 3; files of sequences in place of the folder are packed alone (stage 3). There is nothing to do for its stage 4.`,
  options: {
    data: {
      kind: 'texts',
      help: 'the folder of TextGrids, or files of sequences to pack',
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
    train_dataset_path: { takesValue: true, reason: 'pretrain reads the rows themselves: give them to its --data' },
    validation_dataset_path: {
      takesValue: true,
      reason: 'pretrain reads the rows themselves: give them to its --valid',
    },
    cache_path: { takesValue: true, reason: 'files are read where they are, without a copy' },
  },
  async run(given) {
    const { data = [], unitFolder, output, units: count, epochs, maxLength, segmentUnits, seed } = given
    const { onBadRecord, compat } = given
    const [first, ...more] = data
    if (first === undefined) throw new ConfigError('Say where the TextGrids are: --data DIR', { argument: 'data' })
    if (output === undefined) throw new ConfigError('Say where rows go: --output DIR', { argument: 'output' })
    const { statSync } = await import('node:fs')
    const { join } = await import('node:path')
    const { packUstm, prepareUstm } = await import('../pretraining/prepare.js')
    const isFolder = statSync(first, { throwIfNoEntry: false })?.isDirectory() === true
    if (isFolder && more.length > 0) throw new ConfigError('Give one folder of TextGrids', { argument: 'data' })
    if (!isFolder) {
      const packed = join(output, 'part0.txt')
      const { rows, tooLong } = await packUstm(data, packed, defined({ capacity: maxLength, seed }))
      console.log(`${packed}: ${rows} rows${tooLong > 0 ? `; left out ${tooLong} sequences that are too long` : ''}`)
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
