/**
 * Fine-tunes SPECTRA on recordings of your own and asks it, by the library: `voxtorch spectra train` and `predict` do the
 * same with options.
 *
 * `npx tsx examples/spectra-finetune.ts turns.jsonl TOKENIZER [OUTPUT]`: each line of the file is a turn, such as
 * `{"audio": "1.wav", "text": "How nice", "label": "joy", "speaker": "ann"}`; TOKENIZER is RoBERTa's.
 */

import * as vt from 'voxtorch'
import * as spectra from 'voxtorch/spectra'
import { SpectraForSequenceClassification } from 'voxtorch/spectra'

const [turns = 'turns.jsonl', tokenizer = 'tokenizer', outputDir = 'spectra-mood'] = process.argv.slice(2)

// The speaker of the last line is the test set, so the test measures unseen speakers.
const records: spectra.SpectraJsonlRecord[] = []
for await (const record of vt.readJsonl(turns)) records.push(record as spectra.SpectraJsonlRecord)
const task = spectra.spectraTask({ name: 'mood', kind: 'classification', keyMetric: 'uar' })
const test = [String(records.at(-1)?.speaker)]
const data = await spectra.openSpectraData(turns, { task, tokenizer, speakers: { test } })

vt.manualSeed(42)
const config = await spectra.readSpectraConfig('tiny', data.tokenizer)
const model = SpectraForSequenceClassification.fromConfig({ ...config, numLabels: data.task.numLabels })
const preset = { epochs: 20, batchSize: 8, learningRate: 3e-3, patience: 20 }
console.log(spectra.spectraReport(await spectra.finetuneSpectra({ model, data, outputDir, preset })))

using classifier = await spectra.SpectraClassifier.fromPretrained(`${outputDir}/best`)
const { text = '', audio } = records[0] as spectra.SpectraJsonlRecord
const [answer] = await classifier.classify([{ text, audio: audio ? { path: audio } : null }])
console.log(`${text} (${audio}): ${JSON.stringify(answer)}`)
