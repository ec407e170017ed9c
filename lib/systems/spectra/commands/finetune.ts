import { commandRule } from '../../../kit/command.js'
import { SPECTRA_OPTIONS, SPECTRA_ORIGINAL_OPTIONS } from '../configuration/arguments.js'

export const finetune = commandRule({
  name: 'train',
  aliases: ['finetune'],
  summary: 'Fine-tune on MOSI, MOSEI, IEMOCAP or MIntRec from the published files, or on your own recordings.',
  details: `  voxtorch spectra train --task mosi --data DIR --model SPECTRA-base
  voxtorch spectra train --task mood --kind classification --data turns.jsonl --test-speakers ann,bob --config tiny --tokenizer DIR

Saves the best epoch on the validation data in OUTPUT/best, and evaluates it once on the test data. The same command resumes an
interrupted run. The original's options (--lr=2e-5 --batch_size=24 --multi_audio …) work too.`,
  options: SPECTRA_OPTIONS,
  originalOptions: SPECTRA_ORIGINAL_OPTIONS,
  async run(options) {
    const { manualSeed } = await import('../../../tensor/index.js')
    const { openSpectraData } = await import('../data/open.js')
    const { finetuneSpectra } = await import('../training/train.js')
    const command = await import('../configuration/apply.js')
    for (const { flag, reason } of command.unusedSpectraArguments(options))
      console.error(`${flag} has no effect: ${reason}`)
    const data = await openSpectraData(...command.spectraDataOfArguments(options))
    manualSeed(options.seed ?? 42)
    const model = await command.spectraOfArguments(options, data)
    const results = await finetuneSpectra({ model, data, ...command.spectraFinetuningOfArguments(options) })
    console.log(command.spectraReport(results))
    return 0
  },
})
