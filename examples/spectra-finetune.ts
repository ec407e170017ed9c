/**
 * Fine-tunes SPECTRA on MOSI, MOSEI, IEMOCAP or MIntRec from the published files, or on recordings of your own:
 *
 * `npx tsx examples/spectra-finetune.ts --task mosi --data DIR --model SPECTRA-base`
 * `npx tsx examples/spectra-finetune.ts --task mood --kind classification --data turns.jsonl --test-speakers ann,bob --config tiny --tokenizer DIR`
 *
 * The best epoch by validation is saved and measured once on the test data. The same command goes on where a killed run was.
 * The original's options (`--lr=2e-5 --batch_size=24 --multi_audio ...`) work too.
 */
import * as vt from 'voxtorch'

const { options, ignored } = vt.parseSpectraArguments(process.argv.slice(2))
for (const { flag, reason } of ignored) console.log(`${flag} has no effect: ${reason}`)

const data = await vt.openSpectraData(...vt.dataOfArguments(options))
vt.manualSeed(options.seed ?? 42)
const placement = options.device ? { device: options.device as vt.Device } : {}
const config = { numLabels: data.task.numLabels, ...(options.compat && { compat: options.compat }) }
const model = options.model
  ? await vt.SpectraForSequenceClassification.fromPretrained(options.model, { config, ...placement })
  : vt.SpectraForSequenceClassification.fromConfig({ ...vt.spectraSize(options.config), ...config }, placement)

const results = await vt.finetuneSpectra({ model, data, ...vt.finetuneOfArguments(options) })
console.log(vt.spectraReport(results))
